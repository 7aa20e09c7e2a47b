/** Widths, levels and Mix'n'Match granularities. */
export * from './granularity.ts';
