import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { open, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { withFolder } from '../checkpoint/testing.ts';
import { Random } from '../tensor/random.ts';
import { tokenizerFromJson } from '../text/tokenizer.ts';
import { type PrepareTextOptions, type PrepareTextResult, prepareText, readManifest } from './index.ts';
import {
  folderBytes,
  gzip,
  jsonLines,
  parquetFile,
  sampleDocuments,
  sampleTokenizer,
  storeZstd,
  tokensOf,
  writeFiles,
} from './testing.ts';

const DOCUMENTS = sampleDocuments(40, 1);
const tokenizer = tokenizerFromJson(JSON.parse(sampleTokenizer()));
const expected = (documents: readonly string[], first = true): number[] =>
  documents.flatMap((text) => (first ? [0, ...tokenizer.encode(text)] : [...tokenizer.encode(text), 0]));

/** A folder with a tokenizer and input files. */
async function withInputs(
  files: Readonly<Record<string, string | Uint8Array>>,
  body: (
    at: (name: string) => string,
    prepare: (options?: Partial<PrepareTextOptions>) => Promise<PrepareTextResult>,
  ) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    await writeFiles(folder, { 'tokenizer.json': sampleTokenizer(), ...files });
    const at = (name: string): string => join(folder, name);
    await body(at, (options) =>
      prepareText({
        inputs: [at('in')],
        out: at('out'),
        tokenizer: options?.trainBpe === undefined ? at('tokenizer.json') : undefined,
        validationTokens: 100,
        shardTokens: 1000,
        internals: { taskBytes: 300 },
        ...options,
      }),
    );
  });
}

/** JSON lines in xz: Document 0 to 2. */
const XZ = Buffer.from(
  '/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4ACGADpdAD2IioaUiBPg84ckqD54q1+OZbnMabSQzGlDawfWmUO3eDtR0DerCH84/lXIEDxMVJ2CBlX9V+RsYAAAAACQwEn5mTdMnAABVocBAAAA0DT4orHEZ/sCAAAAAARZWg==',
  'base64',
);
const XZ_DOCUMENTS = [0, 1, 2].map((i) => `Document ${i}.\n\nSecond paragraph.`);

describe('every kind of file gives the same tokens', () => {
  test.each<[string, () => string | Uint8Array | Promise<Uint8Array>]>([
    ['a.jsonl', () => jsonLines(DOCUMENTS)],
    ['a.ndjson.gz', () => gzip(jsonLines(DOCUMENTS).replaceAll('\n', '\r\n\n'))],
    ['a.jsonl.zst', () => storeZstd(Buffer.from(`\ufeff${jsonLines(DOCUMENTS)}`))],
    ['snappy.parquet', () => parquetFile(DOCUMENTS)],
    ['zstd.parquet', () => parquetFile(DOCUMENTS, { codec: 'ZSTD' })],
    ['nulls.parquet', () => parquetFile([null, '', ...DOCUMENTS, null])],
  ])('%s', async (name, content) => {
    await withInputs({ [`in/${name}`]: await content() }, async (at, prepare) => {
      const { manifest } = await prepare();
      expect(await tokensOf(at('out'))).toEqual(expected(DOCUMENTS));
      expect(manifest.counts).toMatchObject({ documents: 40, textBytes: Buffer.byteLength(DOCUMENTS.join('')), skipped: 0 });
    });
  });

  test.each([
    ['the xz program, or else WebAssembly', false],
    ['WebAssembly', true],
  ])('a.jsonl.xz by %s', async (_, hide) => {
    const { PATH } = process.env;
    if (hide) process.env['PATH'] = '/nowhere';
    try {
      await withInputs({ 'in/a.jsonl.xz': XZ }, async (at, prepare) => {
        await prepare({ endToken: 'last' });
        expect(await tokensOf(at('out'))).toEqual(expected(XZ_DOCUMENTS, false));
      });
    } finally {
      process.env['PATH'] = PATH;
    }
  });

  test('text: a document a file, in the order of names; a folder, a glob and names say the same', async () => {
    const files = Object.fromEntries(DOCUMENTS.map((text, i) => [`in/${i % 3}/${String(i).padStart(2, '0')}.txt`, text]));
    const inOrder = Object.keys(files).sort();
    await withInputs({ ...files, 'in/.hidden.txt': 'no', 'in/photo.png': 'no' }, async (at, prepare) => {
      await prepare();
      expect(await tokensOf(at('out'))).toEqual(expected(inOrder.map((name) => files[name]!)));
      await prepare({ inputs: [at('in/**/*.{txt,md}')], out: at('glob') });
      expect(await tokensOf(at('glob'))).toEqual(await tokensOf(at('out')));
      await prepare({ inputs: [at('in/[02]/?4.txt'), at('in/1/01.txt')], out: at('names') });
      expect(await tokensOf(at('names'))).toEqual(expected([DOCUMENTS[24]!, DOCUMENTS[14]!, DOCUMENTS[1]!]));
    });
  });

  test('text: one long document, cut or not, and documents by lines and by blank lines', async () => {
    const long = DOCUMENTS.join('\n\nParagraph. ');
    await withInputs({ 'in/a.txt': long }, async (at, prepare) => {
      for (const pieceParagraphs of [0, 1, 3, 400]) {
        await prepare({ out: at(`long${pieceParagraphs}`), pieceParagraphs });
        expect(await tokensOf(at(`long${pieceParagraphs}`))).toEqual(expected([long]));
      }
      await prepare({ out: at('lines'), split: 'line' });
      const lines = long.split('\n').map((line) => line.replace(/\r$/, ''));
      expect(await tokensOf(at('lines'))).toEqual(expected(lines.filter((line) => line.trim() !== '')));
      await prepare({ out: at('blank'), split: 'blank-line' });
      const parts = long.split(/\n(?:[ \t]*\r?\n)+/).map((part) => part.replace(/^[\r\n]+|[\r\n]+$/g, ''));
      expect(await tokensOf(at('blank'))).toEqual(expected(parts.filter((part) => part.trim() !== '')));
    });
  });

  test('another field or column', async () => {
    await withInputs(
      { 'in/a.jsonl': jsonLines(DOCUMENTS, 'body'), 'in/b.parquet': await parquetFile(DOCUMENTS, { column: 'body' }) },
      async (at, prepare) => {
        await prepare({ field: 'body', column: 'body' });
        expect(await tokensOf(at('out'))).toEqual(expected([...DOCUMENTS, ...DOCUMENTS]));
      },
    );
  });
});

describe('the manifest', () => {
  test('tells of shards, hashes, tokenizer and options', async () => {
    await withInputs({ 'in/a.jsonl': jsonLines(DOCUMENTS) }, async (at, prepare) => {
      const { manifest, engine, tokens, resumed } = await prepare();
      expect([engine, tokens, resumed]).toEqual(['byte-level', expected(DOCUMENTS).length, false]);
      expect(await readManifest(at('out'))).toEqual(manifest);
      expect(manifest).toMatchObject({ complete: true, tokenizer: { vocabSize: 320, endTokenId: 0, file: 'tokenizer.json' } });
      expect(manifest.shards.map(({ file, tokens }) => [file, tokens]).slice(0, 2)).toEqual([
        ['val_000000.bin', 100],
        ['train_000001.bin', 1000],
      ]);
      expect(manifest.tokens.train + manifest.tokens.val).toBe(tokens);
      for (const { file, sha256, bytes, tokens } of manifest.shards) {
        const content = await readFile(at(`out/${file}`));
        expect([content.length, content.readInt32LE(8)]).toEqual([bytes, tokens]);
        expect(createHash('sha256').update(content).digest('hex')).toBe(sha256);
      }
      expect(await readFile(at('out/tokenizer.json'), 'utf8')).toBe(sampleTokenizer());
      const names = (await readdir(at('out'))).sort();
      expect(names).toEqual(['manifest.json', 'tokenizer.json', ...manifest.shards.map(({ file }) => file)].sort());
      // Once more: nothing is left to do.
      const before = await folderBytes(at('out'));
      expect(await prepare()).toMatchObject({ resumed: true, tokens: 0 });
      expect(await folderBytes(at('out'))).toEqual(before);
    });
  });

  test('refuses other options, another tokenizer and changed inputs, until it is told to begin anew', async () => {
    await withInputs(
      { 'in/a.jsonl': jsonLines(DOCUMENTS), 'gpt/tokenizer.json': sampleTokenizer().replace('"1.0"', '"1.1"') },
      async (at, prepare) => {
        await prepare();
        const refused = async (options: Partial<PrepareTextOptions>, why: RegExp): Promise<void> =>
          expect(prepare(options)).rejects.toMatchObject({ code: 'OPTION', message: expect.stringMatching(why) as string });
        await refused({ shardTokens: 2000 }, /shardTokens was 1000, now 2000/);
        await refused({ endToken: 'last' }, /endToken was "first", now "last"/);
        await refused({ tokenizer: at('gpt') }, /tokenizer was/);
        await refused({ inputs: [at('in'), at('tokenizer.json')] }, /1 input files, now 2/);
        await writeFile(at('in/a.jsonl'), jsonLines([...DOCUMENTS, 'one more']));
        await refused({}, /a\.jsonl has changed/);
        await prepare({ force: true, endToken: 'last' });
        expect(await tokensOf(at('out'))).toEqual(expected([...DOCUMENTS, 'one more'], false));
        await rm(at('out/train_000001.bin'));
        await expect(prepare({ endToken: 'last' })).rejects.toMatchObject({
          code: 'FILE',
          message: expect.stringContaining('is missing') as string,
        });
        await rename(at('out/manifest.json'), at('out/old.json'));
        await expect(prepare({})).rejects.toMatchObject({
          code: 'FILE',
          message: expect.stringContaining('no manifest') as string,
        });
      },
    );
  });
});

describe('a run that was broken off', () => {
  const inputs = async (): Promise<Record<string, string | Uint8Array>> => ({
    'in/a.jsonl.gz': gzip(jsonLines(DOCUMENTS)),
    'in/b.parquet': await parquetFile(sampleDocuments(30, 2)),
    'in/c.txt': sampleDocuments(40, 3).join('\n\nParagraph. '),
    'in/d.jsonl': `${jsonLines(sampleDocuments(5, 4))}{bad}\n${jsonLines(sampleDocuments(5, 5))}`,
    'in/e.parquet': 'not a Parquet file',
  });

  test('goes on to the same bytes, wherever it stopped', async () => {
    await withInputs(await inputs(), async (at, prepare) => {
      const options = { shardTokens: 333, validationTokens: 222, skipBad: true };
      await prepare(options);
      const whole = await folderBytes(at('out'));
      const random = new Random(1, 'stops');
      for (let round = 0; round < 6; round++) {
        const out = at(`broken${round}`);
        for (let attempt = 0; ; attempt++) {
          expect(attempt).toBeLessThan(40);
          // Stops after some writes, in the middle of a shard, like a process that dies.
          let left = 1 + Math.floor(random.uniform() * 12);
          const openShard = async (path: string): ReturnType<typeof open> => {
            const file = await open(path, 'w');
            const write = file.write.bind(file) as (...args: unknown[]) => Promise<never>;
            Object.assign(file, {
              write: async (...args: unknown[]) => (left-- > 0 ? write(...args) : Promise.reject(new Error('broken off'))),
            });
            return file;
          };
          const done = await prepare({ ...options, out, internals: { taskBytes: 100 + 50 * round, openShard } }).then(
            () => true,
            (error: Error) => {
              expect(error.message).toContain('broken off');
              return false;
            },
          );
          if (done) break;
        }
        expect(await folderBytes(out)).toEqual(whole);
      }
    });
  });

  test('stops at a signal and goes on', async () => {
    await withInputs(await inputs(), async (at, prepare) => {
      const stop = new AbortController();
      await expect(
        prepare({ skipBad: true, signal: stop.signal, onProgress: ({ tokens }) => tokens > 2000 && stop.abort() }),
      ).rejects.toMatchObject({ code: 'ABORTED' });
      expect(await prepare({ skipBad: true })).toMatchObject({ resumed: true });
      await prepare({ skipBad: true, out: at('whole') });
      expect(await folderBytes(at('out'))).toEqual(await folderBytes(at('whole')));
    });
  });
});

describe('several ranks', () => {
  test('share the files and write shards of their own into one folder', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 5 }, (_, i) => [`in/${i}.jsonl`, jsonLines(sampleDocuments(12, 20 + i))]),
    );
    await withInputs(files, async (at, prepare) => {
      const results = [];
      for (const rank of [0, 1, 2]) results.push(await prepare({ rank, ranks: 3, out: at('out') }));
      expect(results.map(({ manifest }) => manifest.inputs.length)).toEqual([2, 2, 1]);
      const names = results.flatMap(({ manifest }) => manifest.shards.map(({ file }) => file));
      expect(new Set(names).size).toBe(names.length);
      expect((await readdir(at('out'))).filter((name) => name.endsWith('.bin')).sort()).toEqual([...names].sort());
      expect(names.filter((name) => name.startsWith('val'))).toEqual(['val_000000.bin']);
      const total = results.reduce((sum, { tokens }) => sum + tokens, 0);
      await prepare({ out: at('one') });
      expect((await tokensOf(at('one'))).length).toBe(total);
      await expect(prepare({ rank: 3, ranks: 3 })).rejects.toMatchObject({ code: 'OPTION' });
    });
  });
});

describe('a tokenizer of its own', () => {
  test('is trained on the text, saved, and the same on another run', async () => {
    await withInputs({ 'in/a.jsonl': jsonLines(sampleDocuments(200, 6)) }, async (at, prepare) => {
      const { manifest } = await prepare({ trainBpe: 330, validationTokens: 0 });
      expect(manifest.tokenizer).toMatchObject({ name: 'bpe-330', vocabSize: 330, endTokenId: 0, file: 'tokenizer.json' });
      const trained = tokenizerFromJson(JSON.parse(await readFile(at('out/tokenizer.json'), 'utf8')));
      expect(trained.decode((await tokensOf(at('out'))).slice(1))).toBe(sampleDocuments(200, 6).join('<|endoftext|>'));
      await prepare({ trainBpe: 330, validationTokens: 0, out: at('again') });
      expect(await folderBytes(at('again'))).toEqual(await folderBytes(at('out')));
      expect(await prepare({ trainBpe: 330, validationTokens: 0 })).toMatchObject({ resumed: true, tokens: 0 });
      await expect(prepare({ trainBpe: 330, tokenizer: at('tokenizer.json'), out: at('both') })).rejects.toMatchObject({
        code: 'OPTION',
      });
    });
  });
});

describe('bad input', () => {
  test('is named, and with skipBad the rest goes on', async () => {
    const good = jsonLines(DOCUMENTS);
    const cut = gzip(good).subarray(0, 400);
    const damaged = Buffer.from(await parquetFile(DOCUMENTS));
    damaged.fill(0xff, 20, 120);
    const cases: [string, string | Uint8Array, RegExp][] = [
      ['a.parquet', '', /a\.parquet is not a Parquet file.*empty/],
      ['b.parquet', 'PAR1 nothing of the kind PAR1', /b\.parquet/],
      ['c.parquet', damaged, /c\.parquet \(row group 0\)/],
      ['d.jsonl', `${good}{"text": \n`, /d\.jsonl, line 41: not valid JSON/],
      ['e.jsonl', `${good}{"body": "x"}\n`, /e\.jsonl, line 41: there is no field 'text'\s+it has body/],
      ['f.jsonl', `[1]\n${good}`, /f\.jsonl, line 1: not a JSON object/],
      ['g.jsonl.gz', cut, /g\.jsonl\.gz is damaged/],
      ['h.jsonl.zst', 'no such thing', /h\.jsonl\.zst is damaged/],
      ['i.jsonl.xz', XZ.subarray(0, 60), /i\.jsonl\.xz is damaged/],
      ['j.txt', '', /j\.txt is empty/],
      ['k.parquet', await parquetFile(DOCUMENTS, { column: 'body' }), /k\.parquet has no column 'text'\s+it has id, body/],
    ];
    await withInputs({}, async (at, prepare) => {
      for (const [name, content, message] of cases) {
        await writeFiles(at(name.split('.')[0]!), { [name]: content, 'z.jsonl': good });
        const inputs = [at(name.split('.')[0]!)];
        const out = at(`out-${name}`);
        await expect(prepare({ inputs, out }), name).rejects.toMatchObject({
          code: 'FORMAT',
          message: expect.stringMatching(message) as string,
        });
        const warnings: string[] = [];
        const { manifest } = await prepare({
          inputs,
          out: `${out}-skip`,
          skipBad: true,
          onWarning: (text) => warnings.push(text),
        });
        expect(manifest.counts.skipped, name).toBeGreaterThan(0);
        expect(warnings[0]).toContain(name);
        const tokens = await tokensOf(`${out}-skip`);
        const rest = expected(DOCUMENTS);
        expect(tokens.slice(-rest.length), name).toEqual(rest);
      }
    });
  });

  test('names that say nothing, are missing, or come twice', async () => {
    await withInputs({ 'in/a.jsonl': jsonLines(DOCUMENTS), 'in/data.bin': 'x', 'empty/x': '' }, async (at, prepare) => {
      await expect(prepare({ inputs: [at('in/data.bin')] })).rejects.toMatchObject({ code: 'OPTION' });
      await expect(prepare({ inputs: [at('nothing')] })).rejects.toMatchObject({ code: 'FILE' });
      await expect(prepare({ inputs: [at('*.parquet')] })).rejects.toMatchObject({ code: 'FILE' });
      await expect(prepare({ inputs: [at('empty')] })).rejects.toMatchObject({ code: 'FILE' });
      await expect(prepare({ inputs: [at('in/a.jsonl'), at('in/a.jsonl')] })).rejects.toMatchObject({ code: 'OPTION' });
      await expect(prepare({ inputs: [] })).rejects.toMatchObject({ code: 'OPTION' });
      await expect(prepare({ shardTokens: 0 })).rejects.toMatchObject({ code: 'OPTION' });
      await expect(prepare({ shards: 3 } as object)).rejects.toMatchObject({ code: 'OPTION' });
      await prepare({ inputs: [at('in/data.bin')], format: 'text', validationTokens: 0 });
    });
  });

  test('tokenizers with too many ids, or without an end token', async () => {
    const json = JSON.parse(sampleTokenizer()) as { added_tokens: object[]; model: { vocab: Record<string, number> } };
    const large = { ...json, model: { ...json.model, vocab: { ...json.model.vocab, far: 65536 } } };
    const endless = JSON.stringify({ ...json, added_tokens: [] });
    await withInputs(
      { 'in/a.jsonl': jsonLines(DOCUMENTS), 'large.json': JSON.stringify(large), 'endless.json': endless },
      async (at, prepare) => {
        await expect(prepare({ tokenizer: at('large.json') })).rejects.toMatchObject({
          code: 'TOKEN',
          message: expect.stringContaining('65537 ids') as string,
        });
        await expect(prepare({ tokenizer: at('endless.json') })).rejects.toMatchObject({ code: 'TOKEN' });
        await expect(prepare({ tokenizer: at('none') })).rejects.toMatchObject({ code: 'FILE' });
      },
    );
  });

  test.skipIf(!existsSync('/dev/full'))('a full disk (skipped without /dev/full)', async () => {
    await withInputs({ 'in/a.jsonl': jsonLines(DOCUMENTS) }, async (at, prepare) => {
      const full = { taskBytes: 300, openShard: async (): ReturnType<typeof open> => open('/dev/full', 'w') };
      await expect(prepare({ internals: full })).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringContaining('the disk is full') as string,
      });
      expect((await readdir(at('out'))).sort()).toEqual(['manifest.json', 'tokenizer.json']);
      await prepare();
      expect(await tokensOf(at('out'))).toEqual(expected(DOCUMENTS));
    });
  });

  test('too little text for training is said', async () => {
    await withInputs({ 'in/a.txt': 'short' }, async (_, prepare) => {
      const warnings: string[] = [];
      await prepare({ onWarning: (text) => warnings.push(text) });
      expect(warnings).toEqual([expect.stringMatching(/validation shard/)]);
    });
  });
});
