/**
 * Finds the model's tensors in what a trainer saved: a state dict as it is, or one under `model`, `state_dict` or
 * `model_state_dict` beside optimiser state, step counters and arguments, which are ignored. Prefixes that wrappers add
 * (`module.` by DistributedDataParallel, `_orig_mod.` by torch.compile) are taken off.
 */

import { MatMambaError } from '../errors.ts';
import { DTYPES } from '../tensor/index.ts';
import { type TensorRef, isForeignTensor, isTensorRef } from './pytorch-classes.ts';

const NESTED_UNDER = ['model', 'state_dict', 'model_state_dict'] as const;
const MAX_NESTING = 3;

export interface StateDict {
  readonly tensors: ReadonlyMap<string, TensorRef>;
  /** Plain numbers, strings and booleans that stood beside the state dict (step, epoch, ...), as text. */
  readonly metadata: Record<string, string>;
}

/** The parameter's own name, without what wrappers put in front of it or between its parts. */
export function stripWrapperPrefixes(name: string): string {
  return name.replace(/^(?:module\.|_orig_mod\.)+/, '').replaceAll('._orig_mod.', '.');
}

function holdsTensors(value: unknown): value is Map<unknown, unknown> {
  return value instanceof Map && [...value.values()].some((item) => isTensorRef(item) || isForeignTensor(item));
}

/** The innermost map that holds the model. */
function locate(value: unknown, depth: number): Map<unknown, unknown> | undefined {
  if (!(value instanceof Map)) return undefined;
  if (depth < MAX_NESTING) {
    for (const key of NESTED_UNDER) {
      const inner = locate(value.get(key), depth + 1);
      if (inner) return inner;
    }
  }
  return holdsTensors(value) ? value : undefined;
}

function describe(root: unknown): string {
  if (!(root instanceof Map)) return isTensorRef(root) ? 'a single tensor' : 'no dict';
  const keys = [...root.keys()].slice(0, 8).map((key) => (typeof key === 'string' ? `'${key.slice(0, 40)}'` : `a ${typeof key}`));
  return keys.length > 0 ? `a dict with ${keys.join(', ')}` : 'an empty dict';
}

/**
 * The tensors of a pickled checkpoint by their own names, in file order.
 * @throws FORMAT when there are none, or two become the same name
 */
export function findStateDict(root: unknown, file: string): StateDict {
  const found = locate(root, 0) ?? (root instanceof Map && root.size === 0 ? root : undefined);
  if (!found) {
    throw new MatMambaError('FORMAT', `${file} holds no state dict: it is ${describe(root)}`, {
      hint: `put the model's state_dict() at the top or under one of ${NESTED_UNDER.join(', ')}`,
    });
  }
  const tensors = new Map<string, TensorRef>();
  for (const [key, value] of found) {
    if (typeof key !== 'string') continue;
    if (isForeignTensor(value)) {
      throw new MatMambaError('FORMAT', `${file}: '${key}' has the dtype ${value.dtype}`, {
        hint: `supported: ${DTYPES.join(', ')}, bool`,
      });
    }
    if (!isTensorRef(value)) continue;
    const name = stripWrapperPrefixes(key);
    if (tensors.has(name))
      throw new MatMambaError('FORMAT', `${file}: two tensors are called '${name}' once wrapper prefixes are taken off`);
    tensors.set(name, value);
  }
  const metadata: Record<string, string> = Object.create(null);
  if (root instanceof Map && root !== found) {
    for (const [key, value] of root) {
      if (typeof key !== 'string' || !['string', 'number', 'boolean', 'bigint'].includes(typeof value)) continue;
      metadata[key] = String(value);
    }
  }
  return { tensors, metadata };
}
