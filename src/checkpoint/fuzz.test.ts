import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { MatMambaError } from '../errors.ts';
import { openCheckpointSource } from './checkpoint.ts';
import { readPickle } from './pickle.ts';
import { allowedClass, storageOf } from './pytorch-classes.ts';
import { parsePythonJson } from './python-json.ts';
import { saveTensors } from './save.ts';
import { memorySource } from './source.ts';
import { assemble, pickledTensor, plainZip, sample, text, withFolder } from './testing.ts';

const RUNS = 10_000;

/** A change to a valid file: overwrite, insert, remove or cut. Most changes hit the first bytes, where the structure is. */
const change = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'insert', 'remove', 'cut'),
  at: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 0.1, noNaN: true })),
  bytes: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
    fc.constantFrom(new Uint8Array(8).fill(255), new Uint8Array(4), Uint8Array.of(0x80)),
  ),
});
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function mutate(file: Uint8Array, changes: readonly Change[]): Uint8Array {
  let result: Uint8Array = file.slice();
  for (const { kind, at, bytes } of changes) {
    const where = Math.floor(at * result.length);
    if (kind === 'set') result.set(bytes.subarray(0, result.length - where), where);
    else if (kind === 'cut') result = result.slice(0, where);
    else
      result = assemble(
        result.subarray(0, where),
        kind === 'insert' ? bytes : new Uint8Array(0),
        result.subarray(kind === 'remove' ? where + bytes.length : where),
      );
  }
  return result;
}

/** Opens and reads everything; only MatMambaErrors with a sensible code may come out. */
async function survives(bytes: Uint8Array): Promise<void> {
  try {
    const checkpoint = await openCheckpointSource(memorySource(bytes));
    for (const entry of checkpoint.entries.values()) await entry.read(0, Math.min(entry.byteLength, 4096));
    await checkpoint.close();
  } catch (error) {
    if (!(error instanceof MatMambaError) || error.code === 'INTERNAL') throw error;
  }
}

let safetensors: Uint8Array;
let torch: Uint8Array;

beforeAll(async () => {
  await withFolder(async (folder) => {
    const tensors = [sample('a', 'f32', [3]), sample('b.weight', 'i8', [2, 2]), sample('c', 'bf16', [])];
    const list = [...tensors, { ...tensors[0]!, name: 'tied', aliasOf: 'a' }];
    await saveTensors(folder, 'safetensors', list, { metadata: { k: 'v' } });
    await saveTensors(join(folder, 't'), 'pytorch', list);
    safetensors = await readFile(join(folder, 'model.safetensors'));
    torch = await readFile(join(folder, 't', 'pytorch_model.bin'));
  });
});

const changes = fc.array(change, { minLength: 1, maxLength: 4 });

describe(`fuzzing, ${RUNS} cases each`, () => {
  test('safetensors headers', async () => {
    const json = fc.json({ maxDepth: 3 });
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          { weight: 8, arbitrary: changes },
          { weight: 1, arbitrary: json },
          { weight: 1, arbitrary: fc.uint8Array({ maxLength: 64 }) },
        ),
        async (given) => {
          if (typeof given === 'string') {
            const header = new TextEncoder().encode(given);
            const length = new DataView(new ArrayBuffer(8));
            length.setUint32(0, header.length, true);
            await survives(assemble(new Uint8Array(length.buffer), header, new Uint8Array(16)));
          } else await survives(given instanceof Uint8Array ? given : mutate(safetensors, given));
        },
      ),
      { numRuns: RUNS },
    );
  }, 60_000);

  test('zip archives', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof({ weight: 9, arbitrary: changes }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }) }),
        async (given) => {
          await survives(given instanceof Uint8Array ? assemble('PK', [3, 4], given) : mutate(torch, given));
        },
      ),
      { numRuns: RUNS },
    );
  }, 60_000);

  test('pickles, inside and outside an archive', async () => {
    const item = assemble('(', text('k'), pickledTensor('0', 12, 1, [2, 2], [1, 2]), 'u');
    const valid = assemble(0x80, 2, '}q', 0, item, text('m'), assemble('h', 0), 's.');
    const opcodes = [...'.(012NGKMJXTUCB]){}leatdusciRbQqrhjo']
      .map((c) => c.charCodeAt(0))
      .concat([0x80, 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96]);
    const part = fc.oneof(
      fc.constantFrom(...opcodes).map((opcode) => assemble(opcode)),
      fc.constantFrom(
        assemble('ccollections\nOrderedDict\n'),
        assemble('ctorch._utils\n_rebuild_tensor_v2\n'),
        assemble('ctorch.storage\nUntypedStorage\n'),
        assemble('ctorch\nSize\n'),
        assemble('c_codecs\nencode\n'),
        assemble('ctorch._tensor\n_rebuild_from_type_v2\n'),
        assemble('cbuiltins\nset\n'),
        assemble('ctorch._utils\n_rebuild_tensor_v3\n'),
        assemble('ccollections\ndefaultdict\n'),
        assemble('cargparse\nNamespace\n'),
        text('storage'),
        text('latin1'),
        pickledTensor('0', 12, 0, [3], [1]),
        assemble('(', 'K', 1, 't'),
      ),
      fc.uint8Array({ maxLength: 3 }),
    );
    const numbers = new Uint8Array(48);
    await fc.assert(
      fc.asyncProperty(fc.oneof(changes, fc.array(part, { maxLength: 30 })), async (given) => {
        const made =
          given.length > 0 && given[0] instanceof Uint8Array
            ? assemble(0x80, 4, ...(given as Uint8Array[]), '.')
            : mutate(valid, given as Change[]);
        await survives(plainZip({ 'a/data.pkl': made, 'a/data/0': numbers }));
        try {
          readPickle(made, { name: 'fuzz', classOf: allowedClass, persistent: storageOf });
        } catch (error) {
          if (!(error instanceof MatMambaError)) throw error;
        }
      }),
      { numRuns: RUNS },
    );
  }, 60_000);

  test('Python JSON: what JSON.parse accepts is read the same, the rest is an error', () => {
    const sometimes = fc.oneof(
      fc.json(),
      fc.string({ unit: fc.constantFrom(...'{}[]",:\\u0019.eE+-NaInfity truefalsn\n'), maxLength: 24 }),
      fc
        .tuple(fc.json(), fc.nat(200), fc.string({ maxLength: 2 }))
        .map(([json, at, more]) => json.slice(0, at) + more + json.slice(at + 1)),
    );
    fc.assert(
      fc.property(sometimes, (given) => {
        let expected: unknown;
        try {
          expected = JSON.parse(given);
        } catch {
          try {
            parsePythonJson(given);
          } catch (error) {
            if (!(error instanceof MatMambaError)) throw error;
          }
          return;
        }
        expect(JSON.stringify(parsePythonJson(given))).toBe(JSON.stringify(expected));
      }),
      { numRuns: RUNS },
    );
  }, 60_000);
});
