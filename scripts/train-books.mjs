/**
 * The embedded model, from text to a folder that can take the place of models/books-10m: `npm run train:books -- OPTIONS`.
 *
 *   --text FILE        books to learn from: JSON lines with a field `text`, one book a line (.xz, .gz, .zst or plain)
 *   --held-out FILE    books to measure on, in the same form
 *   --out DIR          tokens, run, model, measurements; the same command goes on where it was stopped
 *   --tokenizer FILE   a tokenizer.json in place of a vocabulary trained on the text (see RECIPE)
 *   --vocabulary N     ids of the vocabulary trained on the text
 *   --device NAME      where to train and to measure (default cuda)
 *   --windows N        windows of 1,024 held-out tokens to measure on (default: all of them)
 *   --no-measure       train only
 *   -- OPTIONS         of `matmamba train lm`, over those of the recipe
 *
 * Writes OUT/run (checkpoints, log.jsonl, curves.svg), OUT/model (int8 weights, config, tokenizer), OUT/eval.jsonl (held-out
 * loss at every level and ten Mix'n'Match widths, float32) and OUT/samples.txt.
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** What models/books-10m is trained with; docs/training.md says what else was tried. */
const RECIPE = { vocabulary: '4096', train: ['--preset', 'books-10m'] };

const LEVELS = [1, 2, 4, 8];
const PROMPT = 'The old man looked at the sea and said';
const SAMPLE_TOKENS = 60;
const WINDOW_TOKENS = 1024;
/** Of a token file; tokens are two bytes each. */
const HEADER_BYTES = 1024;

/** Share of the full width that layer i of n has, for the ten mixes. */
const MIXES = [
  () => 3 / 4,
  () => 3 / 8,
  () => 3 / 16,
  (i, n) => (i < n / 2 ? 1 : 1 / 2),
  (i, n) => (i < n / 2 ? 1 / 2 : 1),
  (i, n) => (i < n / 2 ? 1 / 2 : 1 / 4),
  (i, n) => (i < n / 2 ? 1 / 4 : 1 / 8),
  (i, n) => (i === 0 || i === n - 1 ? 1 : 1 / 4),
  (i) => (i % 2 === 0 ? 1 : 1 / 8),
  (i, n) => LEVELS.map((level) => 1 / level)[Math.floor((4 * i) / n)],
];

const main = fileURLToPath(new URL('cli/main.js', import.meta.resolve('matmamba')));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    text: { type: 'string' },
    'held-out': { type: 'string' },
    out: { type: 'string' },
    tokenizer: { type: 'string' },
    vocabulary: { type: 'string', default: RECIPE.vocabulary },
    device: { type: 'string', default: 'cuda' },
    windows: { type: 'string' },
    'no-measure': { type: 'boolean', default: false },
  },
});
const { text, 'held-out': heldOut, out, device } = values;
if (!text || !heldOut || !out) {
  console.error('--text, --held-out and --out are needed; the head of scripts/train-books.mjs explains them');
  process.exit(2);
}

/** Runs the command line and returns what it prints where that is `kept`; ends with its status when it fails. */
function matmamba(args, { isKept = false } = {}) {
  const { status, signal, stdout, error } = spawnSync(process.execPath, [main, ...args], {
    stdio: ['ignore', isKept ? 'pipe' : 'inherit', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) {
    console.error(`matmamba ${args[0]} ended with ${error?.message ?? signal ?? status}`);
    process.exit(status ?? 1);
  }
  return stdout;
}

/** A newer checkpoint's folder sorts behind an older one's. */
function lastCheckpoint(run) {
  const folder = join(run, 'checkpoints');
  return join(folder, readdirSync(folder).sort().at(-1));
}

// A signal goes to the command that runs too: it writes a checkpoint and ends, and so does this script.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => {});

mkdirSync(out, { recursive: true });
const [tokens, held, run, model] = ['tokens', 'held-out', 'run', 'model'].map((name) => join(out, name));

// Both folders in one format: documents in the order of the file, each followed by the end token.
const common = ['--end-token', 'last', '--validation-tokens', '0'];
const vocabulary = values.tokenizer ? ['--tokenizer', values.tokenizer] : ['--train-bpe', values.vocabulary];
matmamba(['data', 'text', text, '--out', tokens, ...vocabulary, ...common]);
matmamba(['data', 'text', heldOut, '--out', held, '--tokenizer', join(tokens, 'tokenizer.json'), ...common]);
const heldFile = join(held, 'train_000001.bin');

const vocabSize = Object.keys(JSON.parse(readFileSync(join(tokens, 'tokenizer.json'), 'utf8')).model.vocab).length;
const recipe = [...RECIPE.train, '--vocabulary', String(vocabSize), '--device', device];
matmamba(['train', 'lm', '--data', tokens, '--validation', heldFile, '--out', run, ...recipe, ...positionals]);
matmamba(['convert', lastCheckpoint(run), model, '--dtype', 'int8', '--force']);
if (values['no-measure']) process.exit(0);

const { size } = statSync(heldFile);
const fitting = Math.floor(((size - HEADER_BYTES) / 2 - 1) / WINDOW_TOKENS);
const windows = ['--length', String(WINDOW_TOKENS), '--windows', values.windows ?? String(fitting)];
const { d_model: width, n_layer: layers } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
const mixes = MIXES.map((share) => Array.from({ length: layers }, (_, i) => width * share(i, layers)).join(','));
const widths = ['--level', LEVELS.join(','), ...mixes.flatMap((mix) => ['--dims', mix])];
const measured = matmamba(
  ['eval', heldFile, '--model', model, '--device', device, '--dtype', 'f32', ...windows, ...widths, '--json'],
  {
    isKept: true,
  },
);
writeFileSync(join(out, 'eval.jsonl'), measured);

const samples = LEVELS.map((level) => {
  const options = ['--level', String(level), '--max-tokens', String(SAMPLE_TOKENS), '--seed', '0'];
  return `level ${level}\n${matmamba(['generate', PROMPT, '--model', model, ...options], { isKept: true })}`;
});
writeFileSync(join(out, 'samples.txt'), samples.join('\n'));
console.log(`${measured}\n${samples.join('\n')}`);
