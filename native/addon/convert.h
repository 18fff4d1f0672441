// Between JavaScript values and the runtime's plain types. Addon layer: conversion only, no maths.
#pragma once
#include <napi.h>

#include "../runtime/executor.h"

namespace chainrule {

// Throws a JavaScript error with a code unless the status is napi_ok; returns whether it was.
inline bool check(napi_env env, napi_status status, const char* what) {
  if (status == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_error(env, "ERR_INTERNAL", what);
  return false;
}

struct Bytes {
  char* data = nullptr;
  size_t size = 0;
};

// The bytes of a typed array; a detached one has none. Throws and gives null data for anything else.
inline Bytes typed_array_bytes(napi_env env, napi_value value) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (!check(env, napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr), "not a typed array")) {
    return {};
  }
  static constexpr size_t kWidth[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  return {static_cast<char*>(data), length * kWidth[type]};
}

inline double element(const char* at, DType dtype) {
  switch (dtype) {
    case kF32:
      return *reinterpret_cast<const float*>(at);
    case kF64:
      return *reinterpret_cast<const double*>(at);
    case kI32:
      return *reinterpret_cast<const int32_t*>(at);
    case kBF16: {
      const uint32_t bits = uint32_t{*reinterpret_cast<const uint16_t*>(at)} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
    default:
      return *reinterpret_cast<const uint8_t*>(at);
  }
}

inline Napi::Object failure_object(Napi::Env env, const Failure& failure) {
  Napi::Object object = Napi::Object::New(env);
  object["status"] = static_cast<int32_t>(failure.status);
  object["command"] = failure.command;
  object["op"] = failure.opcode < kOpcodeCount ? op_names()[failure.opcode].name : "";
  object["reason"] = failure.reason;
  object["position"] = static_cast<double>(failure.detail[0]);
  object["value"] = static_cast<double>(failure.detail[1]);
  return object;
}

}  // namespace chainrule
