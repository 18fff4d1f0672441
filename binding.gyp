# The same addon as CMakeLists.txt, for machines without CMake. Lists and flags: native/sources.gypi.
# Each instruction set is a target of its own, because gyp has flags for targets only.
{
  "includes": ["native/sources.gypi"],
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
    "cflags_cc": ["-std=c++20", "<@(cflags)"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "MACOSX_DEPLOYMENT_TARGET": "13.3",
      "OTHER_CPLUSPLUSFLAGS": ["<@(cflags)"]
    },
    "conditions": [
      ["target_arch=='x64'", { "defines": ["CR_HAVE_X86"] }],
      ["target_arch=='arm64'", { "defines": ["CR_HAVE_NEON"] }]
    ]
  },
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "cr_avx2",
          "type": "static_library",
          "sources": ["<@(avx2_sources)"],
          "cflags_cc": ["<@(avx2_cflags)"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(avx2_cflags)"] }
        },
        {
          "target_name": "cr_avx512",
          "type": "static_library",
          "sources": ["<@(avx512_sources)"],
          "cflags_cc": ["<@(avx512_cflags)"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(avx512_cflags)"] }
        }
      ]
    }]
  ],
  "targets": [
    {
      "target_name": "cr_core",
      "type": "static_library",
      "sources": ["<@(core_sources)"],
      "conditions": [["target_arch=='arm64'", { "sources": ["<@(neon_sources)"] }]]
    },
    {
      "target_name": "chainrule",
      "dependencies": ["cr_core"],
      "sources": ["<@(addon_sources)"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["<@(addon_defines)"],
      "ldflags": ["<@(addon_ldflags)"],
      "conditions": [["target_arch=='x64'", { "dependencies": ["cr_avx2", "cr_avx512"] }]]
    }
  ]
}
