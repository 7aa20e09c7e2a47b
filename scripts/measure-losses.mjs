/**
 * Measures the embedded model's held-out loss at the trained levels, other widths and a dozen mixes, for the page's plot:
 *   npm run build && node scripts/measure-losses.mjs VAL.bin
 * VAL.bin is a token file of books that the model was not trained on. Writes web/losses.json, with the first tokens of
 * the file, by which the page measures any other mix itself.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
if (!file) {
  console.error('usage: node scripts/measure-losses.mjs VAL.bin');
  process.exit(1);
}
const MODEL = 'models/books-10m';
const WINDOWS = 16;
const LENGTH = 1024;
const EXCERPT_TOKENS = 769;
const LEVELS = [1, 2, 4, 8];
/** Heads of every layer, between the levels. */
const HEADS = [10, 12, 20, 24, 28, 40, 48, 56];
const D = 384;
const HEAD_DIMS = D / 64;
/** Heads layer by layer. */
const MIXES = [
  [64, 64, 64, 64, 32, 32, 32, 32],
  [32, 32, 32, 32, 64, 64, 64, 64],
  [64, 64, 32, 32, 32, 32, 64, 64],
  [32, 32, 64, 64, 64, 64, 32, 32],
  [64, 56, 48, 40, 32, 24, 16, 8],
  [8, 16, 24, 32, 40, 48, 56, 64],
  [64, 16, 64, 16, 64, 16, 64, 16],
  [64, 32, 16, 8, 8, 16, 32, 64],
  [8, 16, 32, 64, 64, 32, 16, 8],
  [32, 32, 16, 16, 16, 16, 16, 16],
  [16, 16, 16, 16, 16, 16, 32, 32],
  [64, 64, 64, 64, 64, 64, 8, 8],
];

const widths = [...HEADS.map((heads) => Array(8).fill(heads)), ...MIXES].flatMap((heads) => [
  '--dims',
  heads.map((n) => n * HEAD_DIMS).join(),
]);
const common = ['dist/cli/main.js', 'eval', file, '--model', MODEL, '--json', '--length', String(LENGTH)];
const measure = (...options) =>
  execFileSync(process.execPath, [...common, ...options], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const all = measure('--windows', String(WINDOWS), '--level', LEVELS.join(), ...widths);

const bytes = readFileSync(file);
const HEADER_BYTES = 1024;
const tokens = Array.from({ length: EXCERPT_TOKENS }, (_, i) => bytes.readUInt16LE(HEADER_BYTES + 2 * i));
const point = ({ granularity, loss }) => ({ heads: granularity.map((dims) => dims / HEAD_DIMS), loss: Number(loss.toFixed(4)) });
const lines = all.map((one) => `    ${JSON.stringify(point(one))}`).join(',\n');
writeFileSync(
  'web/losses.json',
  `{
  "made": "node scripts/measure-losses.mjs: matmamba eval on ${WINDOWS} windows of ${LENGTH} tokens of held-out books, float32",
  "levels": ${JSON.stringify(LEVELS)},
  "points": [
${lines}
  ],
  "excerpt": ${JSON.stringify(tokens)}
}
`,
);
