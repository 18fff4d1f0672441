// How the page is built: one script and one style sheet with fixed names, for the fixed table of lib/cli/server.ts.
import type { UserConfig } from 'vite';

export default {
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: '../dist/playground',
    emptyOutDir: true,
    target: 'es2022',
    // The policy of the server takes no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: false,
    license: { fileName: 'licenses.md' },
    rolldownOptions: {
      output: { entryFileNames: 'playground.js', assetFileNames: 'playground[extname]', codeSplitting: false },
    },
  },
} satisfies UserConfig;
