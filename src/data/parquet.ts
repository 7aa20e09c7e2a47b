/** One text column of a Parquet file (FineWeb's layout: `text`), read a row group at a time by hyparquet. */

import { MatMambaError, messageOf } from '../errors.ts';
import { type ByteSource, fileSource } from '../checkpoint/source.ts';

export interface ParquetText {
  /** Row groups of the file. @throws FORMAT when there is no such column, or it holds no text */
  groupsOf(column: string): number;
  /** The texts of a row group; `null` where a row has none. @throws FORMAT, FILE */
  read(column: string, group: number): Promise<(string | null)[]>;
  close(): Promise<void>;
}

/** @throws FILE, FORMAT naming the file */
export async function openParquet(path: string, name: string): Promise<ParquetText> {
  const { parquetMetadataAsync, parquetRead } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  const source = await fileSource(path);
  const file = bufferOf(source);
  const damaged = (cause: unknown, where = ''): MatMambaError => {
    if (cause instanceof MatMambaError && cause.code !== 'FORMAT') return cause;
    const hint = 'copy or download it again, or go on without it: --skip-bad';
    return new MatMambaError('FORMAT', `${name}${where} is not a Parquet file that can be read: ${messageOf(cause)}`, {
      cause,
      hint,
    });
  };
  let metadata: Awaited<ReturnType<typeof parquetMetadataAsync>>;
  try {
    if (source.size === 0) throw new MatMambaError('FORMAT', 'it is empty');
    metadata = await parquetMetadataAsync(file);
  } catch (cause) {
    await source.close();
    throw damaged(cause);
  }
  const groups = metadata.row_groups;
  return {
    groupsOf(column) {
      const columns = metadata.schema.filter((element) => element.type !== undefined);
      const found = columns.find((element) => element.name === column);
      if (!found) {
        throw new MatMambaError('FORMAT', `${name} has no column '${column}'`, {
          hint: `it has ${columns.map((element) => element.name).join(', ')}: choose with --column`,
        });
      }
      if (found.type !== 'BYTE_ARRAY')
        throw new MatMambaError('FORMAT', `${name}: the column '${column}' holds ${found.type}, not text`);
      return groups.length;
    },
    async read(column, group) {
      const rowStart = groups.slice(0, group).reduce((sum, { num_rows: rows }) => sum + Number(rows), 0);
      const rowEnd = rowStart + Number(groups[group]!.num_rows);
      let rows: unknown[] = [];
      try {
        await parquetRead({
          file,
          metadata,
          compressors,
          columns: [column],
          rowStart,
          rowEnd,
          rowFormat: 'object',
          onComplete: (read) => {
            rows = read.map((row) => row[column] ?? null);
          },
        });
        if (rows.length !== rowEnd - rowStart) throw new Error(`it has ${rows.length} rows, its end says ${rowEnd - rowStart}`);
        const bad = rows.findIndex((row) => row !== null && typeof row !== 'string');
        if (bad >= 0) throw new Error(`row ${rowStart + bad} holds no text`);
      } catch (cause) {
        throw damaged(cause, ` (row group ${group})`);
      }
      return rows as (string | null)[];
    },
    close: () => source.close(),
  };
}

function bufferOf(source: ByteSource): { byteLength: number; slice: (start: number, end?: number) => Promise<ArrayBuffer> } {
  return {
    byteLength: source.size,
    async slice(start, end = source.size) {
      const from = start < 0 ? source.size + start : start;
      const bytes = await source.read(from, Math.max(0, Math.min(end, source.size) - from));
      return bytes.buffer as ArrayBuffer;
    },
  };
}
