{
  "variables": {
    "core_sources": [
      "native/kernels/isa_baseline.cc",
      "native/kernels/select.cc",
      "native/runtime/arena.cc",
      "native/runtime/cgroup.cc",
      "native/runtime/chain.cc",
      "native/runtime/commands.cc",
      "native/runtime/commands_axis.cc",
      "native/runtime/commands_conv.cc",
      "native/runtime/commands_indexing.cc",
      "native/runtime/commands_list.cc",
      "native/runtime/commands_matmul.cc",
      "native/runtime/commands_rows.cc",
      "native/runtime/commands_source.cc",
      "native/runtime/executor.cc",
      "native/runtime/map.cc",
      "native/runtime/map_walk.cc",
      "native/runtime/pool.cc",
      "native/runtime/queue.cc",
      "native/runtime/slots.cc"
    ],
    "addon_sources": ["native/addon/addon.cc", "native/addon/async.cc"],
    "avx2_sources": ["native/kernels/isa_avx2.cc"],
    "avx2_cflags": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "avx512_sources": ["native/kernels/isa_avx512.cc"],
    "avx512_cflags": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
    "neon_sources": ["native/kernels/isa_neon.cc"],
    "cflags": [
      "-pthread",
      "-fvisibility=hidden",
      "-fvisibility-inlines-hidden",
      "-fno-exceptions",
      "-fno-rtti",
      "-ffp-contract=off",
      "-fno-math-errno",
      "-fno-strict-aliasing",
      "-Wall",
      "-Wextra",
      "-Wframe-larger-than=16384",
      "-Werror=return-type",
      "-Werror=switch",
      "-Werror=uninitialized",
      "-Werror=vla"
    ],
    "addon_defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
    "addon_ldflags": [
      "-pthread",
      "-static-libgcc",
      "-static-libstdc++",
      "-Wl,--exclude-libs,ALL",
      "-Wl,-z,nodelete,-z,now,-z,relro"
    ]
  }
}
