import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { open as openFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { viewAs } from '../tensor/index.ts';
import { AtomicFile } from './atomic-file.ts';
import { openCheckpoint, openCheckpointSource } from './checkpoint.ts';
import { openPytorch } from './pytorch.ts';
import { writePytorch } from './pytorch-writer.ts';
import { saveTensors } from './save.ts';
import { type ByteSource, fileSource, memorySource } from './source.ts';
import { assemble, pickledTensor, plainZip, sample, samples, text, whole, withFolder } from './testing.ts';
import { crc32, readZipDirectory, zipDataOffset } from './zip.ts';

const run = promisify(execFile);
const hasPython = await run('python3', ['-c', 'pass']).then(
  () => true,
  () => false,
);

/** Reads a torch file with Python's own zipfile and pickle and stub classes, and prints what it found. */
const PYTHON_READER = `
import sys, zipfile, pickle, json, hashlib, collections
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
prefix = next(n for n in z.namelist() if n.endswith('data.pkl'))[:-8]
class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ('collections', 'OrderedDict'): return collections.OrderedDict
        if name.startswith('_rebuild_tensor_v'): return lambda *a: (name, a)
        assert module in ('torch', 'torch.storage'), (module, name)
        return module + '.' + name
    def persistent_load(self, id):
        word, kind, key, device, count = id
        assert (word, device) == ('storage', 'cpu')
        return kind, key, count
import io
state = Unpickler(io.BytesIO(z.read(prefix + 'data.pkl'))).load()
out = {}
for name, (rebuild, (storage, offset, size, stride, grad, hooks, *rest)) in state.items():
    data = z.read(prefix + 'data/' + storage[1])
    out[name] = dict(rebuild=rebuild, storage=storage, offset=offset, size=size, stride=stride, grad=grad, rest=rest,
                     sha=hashlib.sha256(data).hexdigest(), bytes=len(data))
info = z.infolist()
print(json.dumps(dict(prefix=prefix, kind=type(state).__name__, names=[i.filename for i in info], stored=all(i.compress_type == 0 for i in info),
    version=z.read(prefix + 'version').decode(), id=z.read(prefix + '.data/serialization_id').decode(),
    byteorder=z.read(prefix + 'byteorder').decode(), tensors=out)))
`;

const OS_SYSTEM = assemble('cos\nsystem\n', text('echo unsafe'), 0x85, 'R.');

/** A checkpoint whose pickle is made by hand; storage '0' holds 0, 1, 2, ... as float32. */
function torchFile(pickle: Uint8Array, more: Record<string, Uint8Array> = {}): ByteSource {
  const numbers = new Uint8Array(Float32Array.from({ length: 12 }, (_, i) => i).buffer);
  return memorySource(
    plainZip({ 'archive/data.pkl': pickle, 'archive/data/0': numbers, 'archive/version': assemble('3\n'), ...more }),
    'x.pt',
  );
}

const dict = (...items: Uint8Array[]): Uint8Array => assemble(0x80, 2, '}(', ...items, 'u.');
const floats = async (source: ByteSource, name: string): Promise<number[]> => {
  const checkpoint = await openCheckpointSource(source);
  return [...viewAs('f32', await checkpoint.entries.get(name)!.read())];
};

describe('torch files', () => {
  test('round trip of every dtype, metadata, ties; entries are 64-byte aligned', async () => {
    await withFolder(async (folder) => {
      const tensors = samples();
      const tied = { ...tensors[1]!, name: 'tied', aliasOf: tensors[1]!.name };
      await saveTensors(folder, 'pytorch', [...tensors, tied], { metadata: { scheme: 'int8' } });
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint.format).toBe('pytorch');
      expect({ ...checkpoint.metadata }).toEqual({ scheme: 'int8' });
      expect([...checkpoint.aliases]).toEqual([['tied', tensors[1]!.name]]);
      expect([...checkpoint.entries.keys()]).toEqual([...tensors.map(({ name }) => name), 'tied']);
      for (const { name, dtype, shape, bytes } of tensors) {
        const entry = checkpoint.entries.get(name)!;
        expect([entry.dtype, entry.shape]).toEqual([dtype, shape]);
        expect(await entry.read()).toEqual(bytes);
      }
      await checkpoint.close();
      const source = await fileSource(join(folder, 'pytorch_model.bin'));
      for (const entry of (await readZipDirectory(source)).values()) expect((await zipDataOffset(source, entry)) % 64).toBe(0);
      await source.close();
    });
  });

  test('shards', async () => {
    await withFolder(async (folder) => {
      const tensors = samples();
      await saveTensors(folder, 'pytorch', [...tensors, { ...tensors[2]!, name: 'tied', aliasOf: tensors[2]!.name }], {
        maxShardBytes: 200,
      });
      const checkpoint = await openCheckpoint(join(folder, 'pytorch_model.bin.index.json'));
      expect(checkpoint.entries.size).toBe(tensors.length + 1);
      expect(checkpoint.aliases.get('tied')).toBe(tensors[2]!.name);
      for (const { name, bytes } of tensors) expect(await checkpoint.entries.get(name)!.read()).toEqual(bytes);
      await checkpoint.close();
    });
  });

  test.skipIf(!hasPython)("Python's zipfile and pickle read what was written (skipped without python3)", async () => {
    await withFolder(async (folder) => {
      // More than 256 memo entries and a number beyond 16 bits, so that the long forms are written too.
      const many = Array.from({ length: 300 }, (_, i) => sample(`w.${i}`, 'f32', [2]));
      const tensors = [...samples(), sample('large', 'u8', [300, 300]), ...many];
      const tied = { ...tensors[0]!, name: 'tied', aliasOf: tensors[0]!.name };
      await saveTensors(folder, 'pytorch', [...tensors, tied], { metadata: { a: 'b' } });
      const { stdout } = await run('python3', ['-c', PYTHON_READER, join(folder, 'pytorch_model.bin')]);
      const found = JSON.parse(stdout);
      expect(found).toMatchObject({
        prefix: 'pytorch_model/',
        kind: 'OrderedDict',
        stored: true,
        version: '3\n',
        byteorder: 'little',
      });
      expect(found.id).toMatch(/^[0-9]{40}$/);
      expect(Object.keys(found.tensors)).toEqual([...tensors.map(({ name }) => name), 'tied']);
      for (const { name, shape, bytes, dtype } of tensors) {
        const read = found.tensors[name];
        expect(read).toMatchObject({ size: shape, offset: 0, grad: false, bytes: bytes.length });
        expect(read.sha).toBe(createHash('sha256').update(bytes).digest('hex'));
        if (dtype === 'bf16') expect(read.storage[0]).toBe('torch.BFloat16Storage');
        if (dtype === 'u16')
          expect([read.rebuild, read.storage[0], read.rest]).toEqual([
            '_rebuild_tensor_v3',
            'torch.storage.UntypedStorage',
            ['torch.uint16'],
          ]);
      }
      expect(found.tensors.tied.storage).toEqual(found.tensors[tensors[0]!.name].storage);
      expect(found.tensors.large.stride).toEqual([300, 1]);
    });
  });

  test('archives beyond 4 GiB (a sparse file)', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'large.bin');
      const start = 5 * 2 ** 30;
      let position = start;
      const file = await AtomicFile.create(path, async (name) => {
        const handle = await openFile(name, 'wx');
        return {
          async write(bytes, offset, length) {
            const written = await handle.write(bytes, offset, length, position);
            position += written.bytesWritten;
            return written;
          },
          sync: () => handle.sync(),
          close: () => handle.close(),
        };
      });
      file.size = start;
      const tensors = samples();
      await writePytorch(file, tensors, {}, 'large');
      await file.finish();
      await file.publish();
      const checkpoint = await openPytorch(await fileSource(path)); // it starts with a hole, so its kind cannot be told
      for (const { name, bytes } of tensors) expect(await checkpoint.entries.get(name)!.read()).toEqual(bytes);
      await checkpoint.close();
      if (hasPython)
        await run('python3', ['-c', 'import sys,zipfile; assert zipfile.ZipFile(sys.argv[1]).testzip() is None', path]);
    });
  });

  test('crc32 agrees with zlib, whole and in pieces', async () => {
    const { crc32: expected } = await import('node:zlib');
    const { bytes } = sample('crc', 'u8', [1003]);
    expect(crc32(bytes)).toBe(expected(bytes));
    expect(crc32(bytes.subarray(77), crc32(bytes.subarray(0, 77)))).toBe(expected(bytes));
  });

  test('views of a storage: offset, transposed, expanded, and their pieces', async () => {
    const source = torchFile(
      dict(
        text('rows'),
        pickledTensor('0', 12, 4, [2, 3], [3, 1]),
        text('transposed'),
        pickledTensor('0', 12, 0, [3, 4], [1, 3]),
        text('expanded'),
        pickledTensor('0', 12, 5, [2, 2], [0, 1]),
        text('again'),
        pickledTensor('0', 12, 4, [2, 3], [3, 1]),
      ),
    );
    expect(await floats(source, 'rows')).toEqual([4, 5, 6, 7, 8, 9]);
    expect(await floats(source, 'transposed')).toEqual([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
    expect(await floats(source, 'expanded')).toEqual([5, 6, 5, 6]);
    const checkpoint = await openCheckpointSource(source);
    expect([...checkpoint.aliases]).toEqual([['again', 'rows']]);
    const whole = await checkpoint.entries.get('transposed')!.read();
    for (let at = 0; at < 48; at += 5)
      expect(await checkpoint.entries.get('transposed')!.read(at, 3)).toEqual(whole.subarray(at, at + 3));
  });

  test('a large transposed tensor goes through windows', async () => {
    await withFolder(async (folder) => {
      const [rows, columns] = [2300, 1000];
      const pickle = assemble(
        0x80,
        2,
        '}',
        text('w'),
        'ctorch._utils\n_rebuild_tensor_v2\n((',
        text('storage'),
        'ctorch\nDoubleStorage\n',
        text('0'),
        text('cpu'),
        'J',
        [...new Uint8Array(Uint32Array.of(rows * columns).buffer)],
        'tQK',
        0,
        '(M',
        [columns & 255, columns >> 8],
        'M',
        [rows & 255, rows >> 8],
        't(K',
        1,
        'M',
        [columns & 255, columns >> 8],
        't',
        0x89,
        '}tRs.',
      );
      const data = Float64Array.from({ length: rows * columns }, (_, i) => i);
      const path = join(folder, 't.pth');
      await saveTensors(folder, 'pytorch', [
        { name: 'w', dtype: 'f64', shape: [rows, columns], chunks: () => new Uint8Array(data.buffer) },
      ]);
      const saved = await openCheckpoint(folder);
      const bytes = await saved.entries.get('w')!.read();
      await saved.close();
      // The storage of the file just saved under a pickle that says "transposed".
      const head = plainZipHead('a/data.pkl', pickle, 'a/data/0', bytes);
      await writeFile(path, head);
      const checkpoint = await openCheckpoint(path);
      const read = viewAs('f64', await checkpoint.entries.get('w')!.read());
      for (let i = 0; i < read.length; i += 997) expect(read[i]).toBe((i % rows) * columns + Math.floor(i / rows));
      await checkpoint.close();
    });
  });

  test('trainer checkpoints: nesting, prefixes, and what stands beside the weights', async () => {
    const beside = [
      text('optimizer'),
      assemble(
        '}(',
        text('state'),
        '}',
        text('param_groups'),
        '](',
        text('betas'),
        'G',
        [0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        0x88,
        'Neu',
      ),
      text('step'),
      assemble('K', 7),
      text('args'),
      assemble('cargparse\nNamespace\n)', 0x81, '}', text('lr'), 'G', [0x3f, 0xf0, 0, 0, 0, 0, 0, 0], 'sb'),
      text('best'),
      assemble(
        'cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n',
        text('f8'),
        0x89,
        0x88,
        0x87,
        'R',
        'c_codecs\nencode\n',
        text('\u0000ÿ'),
        text('latin1'),
        0x86,
        'R',
        0x86,
        'R',
      ),
      text('seen'),
      assemble('c__builtin__\nset\n](K', 1, 'K', 2, 'e', 0x85, 'R'),
      text('big'),
      assemble(0x8a, 9, [0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    const weights = assemble(
      '}(',
      text('module._orig_mod.a.weight'),
      pickledTensor('0', 12, 0, [2], [1]),
      text('module.layers._orig_mod.b'),
      assemble('ctorch._utils\n_rebuild_parameter\n', pickledTensor('0', 12, 3, [2], [1]), 0x88, '}', 0x87, 'R'),
      'u',
    );
    for (const key of ['model', 'state_dict', 'model_state_dict']) {
      const checkpoint = await openCheckpointSource(
        torchFile(dict(text('epoch'), assemble('K', 3), ...beside, text(key), weights)),
      );
      expect([...checkpoint.entries.keys()]).toEqual(['a.weight', 'layers.b']);
      expect({ ...checkpoint.metadata }).toEqual({ epoch: '3', step: '7', big: '18446744073709551616' });
      expect(viewAs('f32', await checkpoint.entries.get('layers.b')!.read())[0]).toBe(3);
    }
    await expect(openCheckpointSource(torchFile(dict(text('epoch'), assemble('K', 3))))).rejects.toMatchObject({
      code: 'FORMAT',
      message: expect.stringMatching(/'epoch'/),
    });
    const twice = dict(text('module.a'), pickledTensor('0', 12, 0, [2], [1]), text('a'), pickledTensor('0', 12, 0, [2], [1]));
    await expect(openCheckpointSource(torchFile(twice))).rejects.toThrow(/two tensors are called 'a'/);
  });

  test.each([
    ['GLOBAL', OS_SYSTEM],
    ['protocol 2', assemble(0x80, 2, OS_SYSTEM)],
    ['STACK_GLOBAL', assemble(0x80, 4, 0x8c, 2, 'os', 0x8c, 6, 'system', 0x93, text('x'), 0x85, 'R.')],
    ['INST', assemble(0x80, 2, '(', text('x'), 'ios\nsystem\n.')],
  ])('os.system is refused by name: %s', async (_how, pickle) => {
    const refusal = { code: 'UNSAFE', message: expect.stringContaining("'os.system'") };
    await expect(openCheckpointSource(torchFile(pickle))).rejects.toMatchObject(refusal);
    if (_how !== 'INST') await expect(openCheckpointSource(memorySource(pickle))).rejects.toMatchObject(refusal);
  });

  test.each([
    'builtins.eval',
    'torch.load',
    'torch._utils._rebuild_sparse_tensor',
    'numpy.core.multiarray.fromstring',
    'torch.FloatStorage.__reduce__',
  ])('%s is not on the list', async (name) => {
    const dot = name.lastIndexOf('.');
    const pickle = assemble(0x80, 2, 'c', name.slice(0, dot), '\n', name.slice(dot + 1), '\n)R.');
    await expect(openCheckpointSource(torchFile(pickle))).rejects.toMatchObject({
      code: 'UNSAFE',
      message: expect.stringContaining(name),
    });
  });

  test.each<[string, ByteSource, RegExp]>([
    ['big-endian', torchFile(dict(), { 'archive/byteorder': assemble('big') }), /big-endian/],
    ['TorchScript', torchFile(dict(), { 'archive/constants.pkl': assemble('.') }), /TorchScript/],
    ['a missing storage', torchFile(dict(text('a'), pickledTensor('7', 12, 0, [2], [1]))), /storage '7' is missing/],
    ['a short storage', torchFile(dict(text('a'), pickledTensor('0', 13, 0, [2], [1]))), /has 48 bytes, its tensors need 52/],
    ['a view past the end', torchFile(dict(text('a'), pickledTensor('0', 12, 3, [10], [1]))), /reaches past the end/],
    [
      'an old format',
      memorySource(assemble(0x80, 2, 0x8a, 10, [108, 252, 156, 70, 249, 32, 106, 168, 80, 25], '.')),
      /before 1\.6/,
    ],
    ['a stack that is empty', torchFile(assemble(0x80, 2, 'R.')), /not there/],
    ['an unknown instruction', torchFile(assemble(0x80, 2, 0xff)), /0xff/],
    ['protocol 9', torchFile(assemble(0x80, 9, '.')), /protocol 9/],
    [
      'a dtype it does not know',
      torchFile(
        dict(
          text('c'),
          assemble(
            'ctorch._utils\n_rebuild_tensor_v2\n((',
            text('storage'),
            'ctorch\nComplexFloatStorage\n',
            text('0'),
            text('cpu'),
            'K',
            6,
            'tQK',
            0,
            whole(6),
            whole(1),
            0x89,
            '}tR',
          ),
        ),
      ),
      /'c' has the dtype ComplexFloatStorage/,
    ],
    ['calling a storage class', torchFile(assemble(0x80, 2, 'ctorch\nFloatStorage\n)R.')), /torch\.FloatStorage/],
  ])('refuses %s', async (_what, source, message) => {
    await expect(openCheckpointSource(source)).rejects.toMatchObject({ code: 'FORMAT', message: expect.stringMatching(message) });
  });

  test('bombs end early', async () => {
    const million = new Uint8Array(3_000_000);
    const cases: Uint8Array[] = [
      million.slice().fill(0x4e),
      million.slice().fill(0x5d),
      million.map((_, i) => (i % 2 ? 0x30 : 0x7d)),
    ];
    // One list of 10,000 values, copied again and again.
    const list = assemble(0x80, 2, 'c__builtin__\nset\nq', 0, '](', new Uint8Array(10_000).fill(0x4e), 'e', 0x85, 'q', 1);
    cases.push(assemble(list, ...Array.from({ length: 20_000 }, () => assemble('h', 0, 'h', 1, 'R0')), '.'));
    for (const pickle of cases) await expect(openCheckpointSource(torchFile(pickle))).rejects.toMatchObject({ code: 'FORMAT' });
    const expanded = assemble(
      0x80,
      2,
      '}',
      text('w'),
      'ctorch._utils\n_rebuild_tensor_v2\n((',
      text('storage'),
      'ctorch\nFloatStorage\n',
      text('0'),
      text('cpu'),
      'K',
      12,
      'tQK',
      0,
      '(J',
      [0, 0, 0, 64],
      'K',
      4,
      't',
      whole(0, 0),
      0x89,
      '}tRs.',
    );
    await expect(openCheckpointSource(torchFile(expanded))).rejects.toThrow(/blows 48 bytes up/);
  });

  test('damage to the pickle is noticed, a compressed archive is named', async () => {
    await withFolder(async (folder) => {
      await saveTensors(folder, 'pytorch', samples());
      const path = join(folder, 'pytorch_model.bin');
      const bytes = await readFile(path);
      bytes[100]! ^= 1;
      await expect(openCheckpointSource(memorySource(bytes))).rejects.toThrow(/checksum/);
      await expect(openCheckpointSource(memorySource(bytes.subarray(0, -30)))).rejects.toThrow(/no zip directory/);
      if (!hasPython) return;
      await run('python3', [
        '-c',
        "import sys,zipfile; zipfile.ZipFile(sys.argv[1],'w',8).writestr('a/data.pkl', b'.'*99)",
        path,
      ]);
      await expect(openCheckpoint(path)).rejects.toThrow(/compressed/);
    });
  });
});

/** A plain zip of two entries, the second too large to go through an array of numbers. */
function plainZipHead(firstName: string, first: Uint8Array, secondName: string, second: Uint8Array): Uint8Array {
  const small = plainZip({ [firstName]: first, [secondName]: new Uint8Array(0) });
  const view = new DataView(small.buffer);
  const directory = view.getUint32(small.length - 6, true);
  const secondEntry = small.lastIndexOf(0x50, small.length - 23); // the last central header
  const result = new Uint8Array(small.length + second.length);
  result.set(small.subarray(0, directory));
  result.set(second, directory);
  result.set(small.subarray(directory), directory + second.length);
  const out = new DataView(result.buffer);
  const at = secondEntry + second.length;
  out.setUint32(at + 20, second.length, true);
  out.setUint32(at + 24, second.length, true);
  out.setUint32(result.length - 6, directory + second.length, true);
  return result;
}
