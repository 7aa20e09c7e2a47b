/** Reading, writing and fetching checkpoints. */
export { writeFileAtomic } from './atomic-file.ts';
export { type OpenCheckpointOptions, openCheckpoint, openCheckpointSource } from './checkpoint.ts';
export { type DownloadProgress, type ResolveModelOptions, type ResolvedModel, resolveModel } from './hub.ts';
export { isModelId } from './model-id.ts';
export {
  type JsonObject,
  type JsonValue,
  type PythonJsonOptions,
  formatPythonJson,
  isJsonObject,
  parsePythonJson,
  parsePythonJsonBytes,
} from './python-json.ts';
export { safetensorsBlob } from './memory-file.ts';
export { type SaveOptions, type SaveResult, saveTensors } from './save.ts';
export { type ByteSource, PIECE_BYTES, blobSource, fileSource, memorySource } from './source.ts';
export type { Checkpoint, CheckpointFormat, TensorEntry, TensorToSave } from './types.ts';
export { type FileRecord, type FileStore, defaultStore, memoryStore } from './web/store.ts';
export { type FileFolder, UrlFolder, memoryFolder, openFolderWeights } from './web/folder.ts';
export { urlOfModel } from './web/address.ts';
