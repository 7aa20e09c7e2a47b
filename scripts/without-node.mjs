/**
 * A Vite plugin that keeps Node out of browser bundles: Node's own modules and native packages, all of which are imported
 * only when something needs them, become one module that says so; the parts of this project that work on files or on a
 * CUDA device are left out with it.
 */

const ABSENT = '\0absent';
const PACKAGES = ['koffi', 'sharp', '@huggingface/hub', 'tokenizers', 'webgpu'];
/** Files that only Node uses, and what they export. */
const FILES = {
  'src/backends/cpu/platform-node.ts': ['nodePlatform'],
  'src/backends/cuda/cuda-backend.ts': ['openCuda'],
  'src/checkpoint/atomic-file.ts': ['AtomicFile', 'writeFileAtomic'],
  'src/checkpoint/hub.ts': ['resolveModel'],
  'src/checkpoint/save.ts': ['saveTensors'],
};

export function withoutNode(root) {
  const refuse = `
    import { MatMambaError } from ${JSON.stringify(`${root}src/errors.ts`)};
    const refuse = () => {
      throw new MatMambaError('DEVICE', 'this needs files or devices that a browser does not give', {
        hint: 'in a browser, load models from URLs; use Node for the rest',
      });
    };`;
  return {
    name: 'matmamba:without-node',
    enforce: 'pre',
    resolveId(id) {
      const isNodes = id.startsWith('node:') || PACKAGES.includes(id);
      return isNodes ? ABSENT : undefined;
    },
    load(id) {
      if (id === ABSENT) return `${refuse}\nrefuse();`;
      const file = Object.keys(FILES).find((name) => id === root + name);
      return file && `${refuse}\n${FILES[file].map((name) => `export { refuse as ${name} };`).join('\n')}`;
    },
  };
}
