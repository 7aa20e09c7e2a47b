import type { OpCase } from '../cases.ts';
import { LAYER_CASES, LAYER_ROWS, layerShape } from '../linear-input-backward/cases.ts';

export const linearWeightBackwardCases: readonly OpCase[] = LAYER_CASES.flatMap((layer, i) => {
  const { segments, rows: weightRows, columns } = layerShape(layer);
  return [...LAYER_ROWS, ...(i === 1 || i === 3 ? [1030] : [])].map((rows, j) => {
    const bias = (i + j) % 2 === 0;
    return {
      name: `${layer.name}, ${rows} x ${layer.width}${bias ? ', bias' : ''}`,
      operands: {
        x: { shape: [rows, layer.width] },
        dy: { shape: [rows, columns] },
        dWeight: { shape: [weightRows, layer.columns] },
        ...(bias ? { dBias: { shape: [weightRows] } } : {}),
      },
      attributes: { segments },
      tolerance: 2e-6,
    };
  });
});
