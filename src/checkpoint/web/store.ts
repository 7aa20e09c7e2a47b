/**
 * Where fetched files are kept: the origin's private file system, so that a model is downloaded once and a broken
 * download goes on where it stopped; or memory, where there is none (Node, pages that are not secure, private windows).
 *
 * Each file has a record beside it. What the record calls saved is on the disk; bytes beyond that may be lost.
 */

/** What is known of a file that was fetched, whole or in part. */
export interface FileRecord {
  readonly url: string;
  /** The server's name for this version, where it gave one. */
  readonly etag: string | null;
  readonly modified: string | null;
  /** Bytes in all, where the server said so. */
  readonly size: number | undefined;
  readonly savedBytes: number;
  readonly complete: boolean;
  /** The server had no such file. */
  readonly absent?: boolean;
}

/** A file that is being written. */
export interface StoredFile {
  /** Appends at `offset`. @throws DOMException QuotaExceededError */
  write(bytes: Uint8Array<ArrayBuffer>, offset: number): void;
  /** Cuts off what lies beyond. */
  truncate(bytes: number): void;
  flush(): void;
  close(): void;
}

export interface FileStore {
  readonly kind: 'opfs' | 'memory';
  record(key: string): Promise<FileRecord | undefined>;
  setRecord(key: string, record: FileRecord): Promise<void>;
  open(key: string): Promise<StoredFile>;
  /** The bytes of a file that is not open. */
  blob(key: string): Promise<Blob>;
  remove(key: string): Promise<void>;
  /** Everything that is kept. */
  records(): Promise<readonly FileRecord[]>;
  clear(): Promise<void>;
}

const FOLDER = 'matmamba';

/** Keeps bytes until the process ends. */
export function memoryStore(): FileStore {
  const records = new Map<string, FileRecord>();
  const files = new Map<string, { bytes: Uint8Array<ArrayBuffer>; length: number }>();
  return {
    kind: 'memory',
    record: async (key) => records.get(key),
    setRecord: async (key, record) => void records.set(key, record),
    async open(key) {
      const file = files.get(key) ?? { bytes: new Uint8Array(0), length: 0 };
      files.set(key, file);
      return {
        write(bytes, offset) {
          const end = offset + bytes.length;
          if (end > file.bytes.length) {
            const larger = new Uint8Array(Math.max(end, records.get(key)?.size ?? 0, Math.ceil(1.5 * file.bytes.length)));
            larger.set(file.bytes.subarray(0, file.length));
            file.bytes = larger;
          }
          file.bytes.set(bytes, offset);
          file.length = Math.max(file.length, end);
        },
        truncate: (bytes) => void (file.length = Math.min(file.length, bytes)),
        flush: () => {},
        close: () => {},
      };
    },
    async blob(key) {
      const file = files.get(key)!;
      return new Blob([file.bytes.subarray(0, file.length)]);
    },
    async remove(key) {
      records.delete(key);
      files.delete(key);
    },
    records: async () => [...records.values()],
    async clear() {
      records.clear();
      files.clear();
    },
  };
}

let opened: Promise<FileStore> | undefined;

/** The origin's private file system where this thread can write to it, else memory. */
export function defaultStore(): Promise<FileStore> {
  opened ??= openPrivateFiles().catch(() => memoryStore());
  return opened;
}

/** @throws when there is none, or it cannot be written step by step (outside of workers) */
async function openPrivateFiles(): Promise<FileStore> {
  const root = await globalThis.navigator.storage.getDirectory();
  if (!('createSyncAccessHandle' in FileSystemFileHandle.prototype)) throw new Error('no sync access handles');
  const folder = (): Promise<FileSystemDirectoryHandle> => root.getDirectoryHandle(FOLDER, { create: true });
  await folder();
  const handleOf = async (name: string, create: boolean): Promise<SyncFileHandle> =>
    (await (await folder()).getFileHandle(name, { create })) as unknown as SyncFileHandle;
  const readRecord = async (name: string): Promise<FileRecord | undefined> => {
    try {
      return JSON.parse(await (await (await handleOf(name, false)).getFile()).text()) as FileRecord;
    } catch {
      // Missing, or broken off while it was written: then the file is fetched anew.
      return undefined;
    }
  };
  const remove = async (name: string): Promise<void> => (await folder()).removeEntry(name).catch(() => {});
  return {
    kind: 'opfs',
    record: (key) => readRecord(`${key}.json`),
    async setRecord(key, record) {
      const access = await (await handleOf(`${key}.json`, true)).createSyncAccessHandle();
      try {
        const bytes = new TextEncoder().encode(JSON.stringify(record));
        access.truncate(0);
        access.write(bytes, { at: 0 });
        access.flush();
      } finally {
        access.close();
      }
    },
    async open(key) {
      const access = await (await handleOf(`${key}.bin`, true)).createSyncAccessHandle();
      return {
        write(bytes, offset) {
          const written = access.write(bytes, { at: offset });
          if (written !== bytes.length) throw new DOMException('the disk is full', 'QuotaExceededError');
        },
        truncate: (bytes) => {
          if (access.getSize() > bytes) access.truncate(bytes);
        },
        flush: () => access.flush(),
        close: () => access.close(),
      };
    },
    blob: async (key) => (await handleOf(`${key}.bin`, false)).getFile(),
    async remove(key) {
      await remove(`${key}.json`);
      await remove(`${key}.bin`);
    },
    async records() {
      const all: FileRecord[] = [];
      for await (const name of ((await folder()) as unknown as { keys(): AsyncIterable<string> }).keys()) {
        const record = name.endsWith('.json') ? await readRecord(name) : undefined;
        if (record) all.push(record);
      }
      return all;
    },
    clear: () => root.removeEntry(FOLDER, { recursive: true }).catch(() => {}),
  };
}

/** As far as it is used here; TypeScript knows it only in workers. */
interface SyncFileHandle extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{
    write(bytes: Uint8Array, options: { at: number }): number;
    truncate(size: number): void;
    getSize(): number;
    flush(): void;
    close(): void;
  }>;
}
