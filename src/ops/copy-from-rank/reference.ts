import type { Reference } from '../cases.ts';

/** Of a group of one. */
export const copyFromRankReference: Reference = ({ x }) => ({ x: x! });
