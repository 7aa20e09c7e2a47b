/** Writes docs/ops.md from the ops' own declarations; with --check it only says whether the file is current. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpuKernels } from '../dist/backends/cpu/table.js';
import { CONFORMANCE } from '../dist/ops/all-cases.js';
import { OPS } from '../dist/ops/index.js';

const describe = (kernel) => ('unsupported' in kernel ? `no: ${kernel.unsupported}` : 'yes');
const rows = Object.entries(OPS).map(([name, op]) => {
  const inputs = Object.entries(op.inputAxes).map(([operand, axes]) => `${operand} (${axes.replaceAll('*', '…')})`);
  const attributes = Object.keys(op.defaults);
  const { cases } = CONFORMANCE[name];
  const tolerances = cases.map(({ tolerance }) => tolerance);
  return [
    `\`${name}\``,
    inputs.join(', '),
    op.outputNames.join(', '),
    attributes.join(', ') || '-',
    describe(cpuKernels[name]),
    cases.length,
    Math.max(...tolerances),
  ];
});

const header = ['op', 'operands', 'results', 'attributes', 'CPU', 'cases', 'tolerance'];
const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => String(row[i]).length)));
const line = (cells) => `| ${cells.map((cell, i) => String(cell).padEnd(widths[i])).join(' | ')} |`;
const text = `# Ops

Made by \`npm run docs:ops\` from the declarations in \`src/ops/\`. Axes are letters, \`…\` stands for all leading axes, \`?\` marks an
optional operand; \`matrix\`, \`vector\`, \`taps\` are weights, \`state\` lives in the sequence's slot. Every case runs against a float64
reference with one and two threads, with and without BLAS, and with every storage of weights; the tolerance is the largest
relative L2 error allowed with float32 weights.

${[line(header), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')}
`;

const path = new URL('../docs/ops.md', import.meta.url);
if (process.argv.includes('--check')) {
  if (readFileSync(path, 'utf8') !== text) {
    console.error('docs/ops.md is not what the ops say: run npm run docs:ops');
    process.exit(1);
  }
} else writeFileSync(path, text);
