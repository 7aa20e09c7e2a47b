import type { Reference } from '../cases.ts';

/** Of a group of one. */
export const sumOverRanksReference: Reference = ({ x }) => ({ x: x! });
