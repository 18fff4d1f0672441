// Loads and stores: strided dtypes to contiguous compute types and back. Kernel layer; plain loops, which the compiler
// vectorises where they are contiguous.
// Values: float -> int truncates, saturates, NaN gives 0; int32 -> uint8 wraps; double -> float and float -> bfloat16
// round to nearest even, NaN stays NaN; anything -> bool is x != 0, so NaN is 1.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "loops.inc.h"

namespace chainrule {
namespace {

// Storage forms that need a type of their own.
struct Bool {
  uint8_t byte;
};
struct BFloat16 {
  uint16_t bits;
};

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

template <class T>
constexpr int kComputeType = kSame<T, float>    ? kF32
                             : kSame<T, double> ? kF64
                                                : kI32;

inline float widen(BFloat16 v) {
  const uint32_t bits = uint32_t{v.bits} << 16;
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}
inline BFloat16 narrow(float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  // Half of the last place kept, less one unless that place is odd. A NaN must not round up into infinity.
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return {uint16_t(v != v ? bits >> 16 | 0x40 : rounded)};
}

// Every comparison with NaN is false, hence the order of the tests.
template <class Int>
inline Int saturate(double v) {
  constexpr double kLow = kSame<Int, int32_t> ? INT32_MIN : 0, kHigh = kSame<Int, int32_t> ? INT32_MAX : UINT8_MAX;
  v = v > kLow ? v : v <= kLow ? kLow : 0;
  return Int(v < kHigh ? v : kHigh);
}

template <class To, class From>
inline To convert(From v) {
  constexpr bool kToInteger = kSame<To, int32_t> || kSame<To, uint8_t>;
  if constexpr (kSame<To, From>)
    return v;
  else if constexpr (kSame<From, Bool>)
    return To(v.byte != 0);
  else if constexpr (kSame<From, BFloat16>)
    return convert<To>(widen(v));
  else if constexpr (kSame<To, Bool>)
    return {uint8_t(v != 0)};
  else if constexpr (kSame<To, BFloat16>)
    return narrow(float(v));
  else if constexpr (kToInteger && (kSame<From, float> || kSame<From, double>))
    return saturate<To>(double(v));
  else
    return To(v);
}

template <class To, class From>
void load_strided(void* dst, const void* src, ptrdiff_t stride, size_t n) {
  To* __restrict to = static_cast<To*>(dst);
  const From* __restrict from = static_cast<const From*>(src);
  if (stride == 1) {
    for (size_t i = 0; i < n; ++i) to[i] = convert<To>(from[i]);
  } else if (stride == 0 && n > 0) {
    const To v = convert<To>(from[0]);
    for (size_t i = 0; i < n; ++i) to[i] = v;
  } else {
    for (size_t i = 0; i < n; ++i) to[i] = convert<To>(from[ptrdiff_t(i) * stride]);
  }
}

template <class To, class From>
void store_strided(void* dst, ptrdiff_t stride, const void* src, size_t n) {
  To* __restrict to = static_cast<To*>(dst);
  const From* __restrict from = static_cast<const From*>(src);
  if (stride == 1) {
    for (size_t i = 0; i < n; ++i) to[i] = convert<To>(from[i]);
  } else {
    for (size_t i = 0; i < n; ++i) to[ptrdiff_t(i) * stride] = convert<To>(from[i]);
  }
}

// Whole cache lines past the cache, what lies before and after them by ordinary stores.
constexpr size_t kCacheLine = 64;
inline void stream_bytes(void* dst, const void* src, size_t bytes) {
  char* to = static_cast<char*>(dst);
  const char* from = static_cast<const char*>(src);
  size_t i = -reinterpret_cast<uintptr_t>(to) % kCacheLine;
  if (i > bytes) i = bytes;
  __builtin_memcpy(to, from, i);
  for (; i + kCacheLine <= bytes; i += kCacheLine) {
    for (size_t part = 0; part < kCacheLine; part += kVectorBytes) {
      stream(reinterpret_cast<int32_t*>(to + i + part), load(reinterpret_cast<const int32_t*>(from + i + part)));
    }
  }
  __builtin_memcpy(to + i, from + i, bytes - i);
}

// to[i] = term(at) for the vectors that cover [0, n). What goes past the cache is gathered first, in whole lines;
// stream_fence ends a run of such writes.
template <class T, class Term>
void write_run(T* to, int64_t n, bool streams, const Term& term) {
  if (!streams) return for_vectors<T>(0, n, [&](auto at) { at.store(to, term(at)); });
  constexpr int64_t kBlock = 2048 / sizeof(T);
  alignas(kVectorBytes) T block[kBlock];
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = min_of(n, begin + kBlock);
    for_vectors<T>(begin, end, [&](auto at) { store(block + (at.i - begin), term(at)); });
    stream_bytes(to + begin, block, static_cast<size_t>(end - begin) * sizeof(T));
  }
}

template <class Storage>
constexpr void fill_convert_dtype(KernelTable& t, DType dtype) {
  t.load[dtype][kF32] = load_strided<float, Storage>;
  t.load[dtype][kF64] = load_strided<double, Storage>;
  t.load[dtype][kI32] = load_strided<int32_t, Storage>;
  t.store[kF32][dtype] = store_strided<Storage, float>;
  t.store[kF64][dtype] = store_strided<Storage, double>;
  t.store[kI32][dtype] = store_strided<Storage, int32_t>;
}

constexpr void fill_convert(KernelTable& t) {
  t.stream = stream_bytes;
  t.stream_fence = stream_fence;
  fill_convert_dtype<float>(t, kF32);
  fill_convert_dtype<double>(t, kF64);
  fill_convert_dtype<int32_t>(t, kI32);
  fill_convert_dtype<uint8_t>(t, kU8);
  fill_convert_dtype<Bool>(t, kBool);
  fill_convert_dtype<BFloat16>(t, kBF16);
}

}  // namespace
}  // namespace chainrule
