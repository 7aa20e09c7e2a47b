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
const { d_model: dModel, n_layer: layers } = JSON.parse(readFileSync(`${MODEL}/config.json`, 'utf8'));
const FULL_HEADS = 64;
const HEAD_DIMS = dModel / FULL_HEADS;

/** 64 at one end, 8 at the other, in eighths; `share` from 0 to 1. */
const between = (share) => 64 - 8 * Math.round(7 * share);
/** How far a layer is from the middle, 0 to 1. */
const fromMiddle = (share) => Math.abs(2 * share - 1);
/** Heads of a layer by its place, 0 (first) to 1 (last), and number. */
const MIXES = [
  (at) => (at < 0.5 ? 64 : 32),
  (at) => (at < 0.5 ? 32 : 64),
  (at) => (fromMiddle(at) > 0.5 ? 64 : 32),
  (at) => (fromMiddle(at) > 0.5 ? 32 : 64),
  (at) => between(at),
  (at) => between(1 - at),
  (_, i) => (i % 2 === 0 ? 64 : 16),
  (at) => between(1 - fromMiddle(at)),
  (at) => between(fromMiddle(at)),
  (at) => (at < 0.25 ? 32 : 16),
  (at) => (at > 0.75 ? 32 : 16),
  (at) => (at > 0.75 ? 8 : 64),
].map((heads) => Array.from({ length: layers }, (_, i) => heads(i / (layers - 1), i)));

const widths = [...HEADS.map((heads) => Array(layers).fill(heads)), ...MIXES].flatMap((heads) => [
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
