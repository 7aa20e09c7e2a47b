/** A checkpoint's file in memory, for where there are no folders. */

import { writeSafetensors } from './safetensors.ts';
import { type TensorToSave, checkTensorsToSave } from './types.ts';

/** A safetensors file of these tensors. @throws SHAPE, WEIGHTS */
export async function safetensorsBlob(
  tensors: readonly TensorToSave[],
  metadata: Readonly<Record<string, string>>,
): Promise<Blob> {
  checkTensorsToSave(tensors);
  const pieces: Blob[] = [];
  // Blobs hold copies, and need not hold them in this process's memory; they take no views of shared memory.
  const write = async (bytes: Uint8Array): Promise<void> => void pieces.push(new Blob([Uint8Array.from(bytes)]));
  await writeSafetensors({ write }, tensors, metadata);
  return new Blob(pieces);
}
