import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

// The built files are committed, so that installing the package needs no Node.
export default defineConfig({
  base: './',
  resolve: {
    alias: [{ find: /^numcodecs\/.*/, replacement: fileURLToPath(new URL('src/no-codec.ts', import.meta.url)) }],
  },
  build: { outDir: '../serving/page/static', emptyOutDir: true, target: 'es2022', chunkSizeWarningLimit: 1000 },
  server: { proxy: { '/causal-sam/api': 'http://127.0.0.1:8000', '/auth': 'http://127.0.0.1:8000' } },
  test: { include: ['tests/**/*.test.ts'] },
})
