/**
 * The allow-list: every name that a checkpoint of the original may hold, and what it stands for here.
 *
 * Three kinds: what tensors are made of (storages, dtypes, rebuild functions), Python's own containers, and inert classes
 * that trainers put beside the weights (arguments, NumPy numbers), which are kept as empty shells. Nothing here runs
 * anything or touches files. Names: torch/_utils.py, torch/storage.py and `Tensor.__reduce_ex__`.
 */

import { MatMambaError } from '../errors.ts';
import { type DType, bytesOf } from '../tensor/index.ts';
import { type PickleClass, PickleObject, isTuple } from './pickle.ts';
import { byteLengthOf } from './types.ts';

/** A storage as a pickle refers to it: `data/<key>` of the archive. An untyped storage has no dtype of its own. */
export interface StorageRef {
  readonly kind: 'storage';
  readonly key: string;
  readonly dtype: DType | undefined;
  /** An element type of torch that is not known here (complex, float8, ...), by name. */
  readonly foreign: string | undefined;
  readonly byteLength: number;
}

/** A tensor whose elements are of a type not known here. It may stand beside the model, not in it. */
export interface ForeignTensor {
  readonly kind: 'foreign';
  readonly dtype: string;
}

/** A tensor as a pickle describes it: a strided view of a storage, counted in elements. */
export interface TensorRef {
  readonly kind: 'tensor';
  readonly storage: StorageRef;
  readonly dtype: DType;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

const STORAGES: ReadonlyMap<string, DType> = new Map([
  ['DoubleStorage', 'f64'],
  ['FloatStorage', 'f32'],
  ['BFloat16Storage', 'bf16'],
  ['HalfStorage', 'f16'],
  ['LongStorage', 'i64'],
  ['IntStorage', 'i32'],
  ['ShortStorage', 'i16'],
  ['CharStorage', 'i8'],
  ['ByteStorage', 'u8'],
  ['BoolStorage', 'u8'],
]);

const DTYPES: ReadonlyMap<string, DType> = new Map([
  ['float64', 'f64'],
  ['double', 'f64'],
  ['float32', 'f32'],
  ['float', 'f32'],
  ['bfloat16', 'bf16'],
  ['float16', 'f16'],
  ['half', 'f16'],
  ['int64', 'i64'],
  ['long', 'i64'],
  ['int32', 'i32'],
  ['int', 'i32'],
  ['int16', 'i16'],
  ['short', 'i16'],
  ['int8', 'i8'],
  ['uint8', 'u8'],
  ['bool', 'u8'],
  ['uint16', 'u16'],
  ['uint32', 'u32'],
]);

/** dtype -> the storage class torch pickles it with; u16 and u32 have none and go through an untyped storage. */
export const STORAGE_OF: Readonly<Partial<Record<DType, string>>> = {
  f64: 'DoubleStorage',
  f32: 'FloatStorage',
  bf16: 'BFloat16Storage',
  f16: 'HalfStorage',
  i64: 'LongStorage',
  i32: 'IntStorage',
  i16: 'ShortStorage',
  i8: 'CharStorage',
  u8: 'ByteStorage',
};

/** A class that stands for an element type: a typed storage or a torch.dtype. */
interface DTypeClass extends PickleClass {
  readonly dtype: DType | undefined;
  readonly foreign: string | undefined;
}

/** Other element types of torch, and the storages of some. */
const FOREIGN = /^(?:float[48]_\w+|complex\d+|cfloat|cdouble|chalf|uint64|u?int[1-7]|bits\w+|q\w+|(?:Complex|Q)\w+Storage)$/;

function malformed(what: string): MatMambaError {
  return new MatMambaError('FORMAT', `the pickle describes ${what} in a way torch.save does not`, {
    hint: 'the file is damaged or was not written by torch.save',
  });
}

/** A name that may be mentioned but not called. */
function mention(qualifiedName: string, dtype?: DType, foreign?: string): DTypeClass {
  return {
    qualifiedName,
    dtype,
    foreign,
    reduce() {
      throw malformed(qualifiedName);
    },
  };
}

function isWhole(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isWholes(value: unknown): value is readonly number[] {
  return isTuple(value) && value.length <= 32 && value.every(isWhole);
}

function isStorage(value: unknown): value is StorageRef {
  return (value as StorageRef | null | undefined)?.kind === 'storage';
}

/** Whether a pickled value is a tensor that can not be read here. */
export function isForeignTensor(value: unknown): value is ForeignTensor {
  return (value as ForeignTensor | null | undefined)?.kind === 'foreign';
}

/** Whether a pickled value is a tensor. */
export function isTensorRef(value: unknown): value is TensorRef {
  return (value as TensorRef | null | undefined)?.kind === 'tensor';
}

/** The storage behind a persistent id: ('storage', class, key, device, number of elements). @throws FORMAT */
export function storageOf(id: unknown): StorageRef {
  if (!isTuple(id) || id.length < 5) throw malformed('a storage');
  const [word, type, key, , count] = id;
  const untyped = (type as PickleClass | null)?.qualifiedName === UNTYPED;
  const { dtype, foreign } = (type ?? {}) as Partial<DTypeClass>;
  if (word !== 'storage' || typeof key !== 'string' || !isWhole(count)) throw malformed('a storage');
  if (!untyped && dtype === undefined && foreign === undefined) throw malformed('a storage');
  const byteLength = count * (dtype === undefined ? 1 : bytesOf(dtype));
  if (!Number.isSafeInteger(byteLength)) throw malformed('a storage');
  return { kind: 'storage', key, dtype, foreign, byteLength };
}

/** Arguments: storage, offset, size, stride, requires_grad, backward_hooks, then (v3) dtype or (v2) metadata. */
function rebuildTensor(args: readonly unknown[], dtypeClass: unknown): TensorRef | ForeignTensor {
  const [storage, offset, shape, strides] = args;
  if (!isStorage(storage) || !isWhole(offset) || !isWholes(shape) || !isWholes(strides)) throw malformed('a tensor');
  const { dtype = storage.dtype, foreign = storage.foreign } = (dtypeClass ?? {}) as Partial<DTypeClass>;
  if (foreign !== undefined) return { kind: 'foreign', dtype: foreign };
  if (dtype === undefined || strides.length !== shape.length || byteLengthOf(dtype, shape) === undefined)
    throw malformed('a tensor');
  // The last element must lie in the storage; an empty tensor has none.
  let last = offset;
  for (let i = 0; i < shape.length; i++) last += (shape[i]! - 1) * strides[i]!;
  const empty = shape.includes(0);
  if (!empty && !((last + 1) * bytesOf(dtype) <= storage.byteLength)) {
    throw new MatMambaError(
      'FORMAT',
      `a tensor of shape (${shape.join(', ')}) reaches past the end of its storage '${storage.key.slice(0, 40)}'`,
      {
        hint: 'the file is damaged or was not written by torch.save',
      },
    );
  }
  return { kind: 'tensor', storage, dtype, offset, shape, strides };
}

/** A parameter is its tensor. */
function tensorArgument(args: readonly unknown[]): TensorRef | ForeignTensor {
  if (!isTensorRef(args[0]) && !isForeignTensor(args[0])) throw malformed('a parameter');
  return args[0];
}

/** Subclass of Tensor with attributes: (rebuild function, type, its arguments, state). */
function rebuildFromType(args: readonly unknown[]): unknown {
  const [rebuild, , inner] = args;
  const known = REBUILD.get((rebuild as PickleClass | null)?.qualifiedName ?? '');
  if (!known || !isTuple(inner)) throw malformed('a tensor');
  return known(inner);
}

const REBUILD: ReadonlyMap<string, (args: readonly unknown[]) => unknown> = new Map([
  ['torch._utils._rebuild_tensor', (args: readonly unknown[]) => rebuildTensor(args, undefined)],
  ['torch._utils._rebuild_tensor_v2', (args: readonly unknown[]) => rebuildTensor(args, undefined)],
  ['torch._utils._rebuild_tensor_v3', (args: readonly unknown[]) => rebuildTensor(args, args[6])],
  ['torch._utils._rebuild_parameter', tensorArgument],
  ['torch._utils._rebuild_parameter_with_state', tensorArgument],
]);

type Build = (args: readonly unknown[], charge: (values: number) => void) => unknown;

/** The pairs of a dict given as a dict or, by Python 2, as a list of pairs. */
function asMap(given: unknown, charge: (values: number) => void): Map<unknown, unknown> {
  const map = new Map<unknown, unknown>();
  if (given === undefined || given === null) return map;
  const pairs: unknown[] = given instanceof Map ? [...given] : Array.isArray(given) ? given : [undefined];
  charge(pairs.length);
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) throw malformed('a dict');
    map.set(pair[0], pair[1]);
  }
  return map;
}

function asList(given: unknown, charge: (values: number) => void): unknown[] {
  if (given === undefined) return [];
  if (!Array.isArray(given)) throw malformed('a list');
  charge(given.length);
  return given.slice();
}

/** Protocol 2 has no bytes: they travel as text through `_codecs.encode(text, 'latin1')`. */
const encode: Build = ([characters, codec], charge) => {
  if (typeof characters !== 'string' || codec !== 'latin1') throw malformed('bytes');
  charge(characters.length >> 4);
  return Uint8Array.from(characters, (character) => character.charCodeAt(0));
};

const CONTAINERS: ReadonlyMap<string, Build> = new Map<string, Build>([
  ['collections.OrderedDict', ([items], charge) => asMap(items, charge)],
  ['collections.Counter', ([items], charge) => asMap(items, charge)],
  ['collections.defaultdict', ([, items], charge) => asMap(items, charge)],
  ['torch.Size', ([items], charge) => Object.freeze(asList(items, charge))],
  ['_codecs.encode', encode],
  ...['builtins', '__builtin__'].flatMap((module): Array<[string, Build]> => [
    [`${module}.set`, ([items], charge) => new Set(asList(items, charge))],
    [`${module}.frozenset`, ([items], charge) => new Set(asList(items, charge))],
    [`${module}.bytearray`, ([bytes]) => (bytes instanceof Uint8Array ? bytes : new Uint8Array(0))],
  ]),
]);

/** Kept as empty shells so that the weights beside them can be read. */
const INERT: ReadonlySet<string> = new Set([
  'argparse.Namespace',
  'types.SimpleNamespace',
  'pathlib.PosixPath',
  'pathlib.PurePosixPath',
  'builtins.complex',
  '__builtin__.complex',
  'torch.device',
  'torch.torch_version.TorchVersion',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy._core.multiarray.scalar',
  'numpy._core.multiarray._reconstruct',
  'numpy.core.numeric._frombuffer',
  'numpy._core.numeric._frombuffer',
]);

const UNTYPED = 'torch.storage.UntypedStorage';
const MENTIONED: ReadonlySet<string> = new Set([
  UNTYPED,
  'torch.Tensor',
  'torch.nn.parameter.Parameter',
  'torch.nn.parameter.Buffer',
  // What a defaultdict makes of a missing key.
  ...['int', 'float', 'bool', 'str', 'list', 'dict', 'tuple'].flatMap((type) => [`builtins.${type}`, `__builtin__.${type}`]),
]);

/** The class behind a name, as `readPickle` asks for it; undefined when the name is not on the list. */
export function allowedClass(qualifiedName: string): PickleClass | undefined {
  const build = REBUILD.get(qualifiedName) ?? CONTAINERS.get(qualifiedName);
  if (build) return { qualifiedName, reduce: build };
  if (qualifiedName === 'torch._tensor._rebuild_from_type_v2') return { qualifiedName, reduce: rebuildFromType };
  if (INERT.has(qualifiedName)) return { qualifiedName, reduce: () => new PickleObject(qualifiedName) };
  if (qualifiedName === 'torch.UntypedStorage') return mention(UNTYPED);
  if (MENTIONED.has(qualifiedName)) return mention(qualifiedName);
  const word = /^torch\.(\w+)$/.exec(qualifiedName)?.[1] ?? '';
  const dtype = STORAGES.get(word) ?? DTYPES.get(word);
  if (dtype !== undefined) return mention(qualifiedName, dtype);
  return FOREIGN.test(word) ? mention(qualifiedName, undefined, word) : undefined;
}
