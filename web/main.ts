import { Engine } from 'matmamba/browser';
const out = document.querySelector('#out')!;
const engine = Engine.start();
out.textContent += JSON.stringify(await engine.devices()) + '\n';
const t0 = performance.now();
const lm = await engine.languageModel('./models/books-10m/', { dtype: 'int8' });
out.textContent += `loaded ${performance.now() - t0}\n${JSON.stringify(lm.info.capabilities)}\n`;
for (const dtype of ['int8', 'f32', 'bf16'] as const) {
  const lm = await engine.languageModel('./models/books-10m/', { dtype });
  for (const mrlLevel of [1, 8]) {
    let ms = 0, n = 0, first = 0;
    for await (const piece of lm.generate('The old man looked at the sea and said', { maxNewTokens: 100, mrlLevel, seed: 1 })) {
      out.textContent += piece.text; if (!n) first = piece.ms; n += piece.ids.length; ms = piece.ms; }
    out.textContent += `\n${dtype} level ${mrlLevel}: first ${first} ms, ${(n - 1) / (ms - first) * 1000} tokens/s\n`;
  }
}
document.title = 'done';
export {};
