import type { Reference } from '../cases.ts';

/** Of a group of one. */
export const totalOverRanksReference: Reference = ({ x }) => ({ y: x! });
