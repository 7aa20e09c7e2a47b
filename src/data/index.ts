/** Text data for training: preparing token files, and drawing batches from them. Node only. */
export { COMPRESSIONS, type Compression } from './byte-stream.ts';
export type { HubDatasetOptions } from './hub-dataset.ts';
export type { InputFormat } from './inputs.ts';
export { type BatchPlace, SAMPLINGS, type Sampling, type TokenBatch, TokenLoader, type TokenLoaderOptions } from './loader.ts';
export { type Manifest, readManifest } from './manifest.ts';
export type { PrepareProgress, PrepareTextOptions } from './prepare-options.ts';
export { type PrepareTextResult, prepareText } from './prepare.ts';
export type { Shard } from './shard-writer.ts';
export { SPLITS, type Split } from './tasks.ts';
export { TOKEN_FILE_HEADER_BYTES, TOKEN_FILE_MAGIC, TOKEN_FILE_VERSION, TokenFile } from './token-file.ts';
export { TokenSet, listTokenFiles } from './token-set.ts';
export { countWords, trainBytePairs } from './train-bpe.ts';
