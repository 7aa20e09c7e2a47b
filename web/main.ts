/** The page: one engine, one language model at two sizes, and what is shown of them. */

import { Engine, type EngineLanguageModel, type EngineProgress } from 'matmamba/browser';
import { afterPause, byId, el, megabytes, millions, speed } from './dom.ts';
import { Losses } from './losses.ts';
import { MixControls } from './mix-controls.ts';
import { Pane } from './pane.ts';
import { Plot } from './plot.ts';
import { Settings } from './settings.ts';
import { type Heads, costOf, uniform } from './size.ts';
import { VisionPanel } from './vision-panel.ts';

const MODEL = new URLSearchParams(location.search).get('model') ?? './models/books-10m/';
const LAYERS = 8;
const TYPING_PAUSE_MS = 450;
const SLIDING_PAUSE_MS = 220;
const IDLE_MS = 500;

const engine = Engine.start();
const prompt = byId<HTMLTextAreaElement>('prompt');
const compare = byId<HTMLInputElement>('compare');
const panes = (['A', 'B'] as const).map((side) => new Pane(side, onPaneState));
const sizes: Heads[] = [uniform(LAYERS, 64), uniform(LAYERS, 8)];
let side = 0;
let seed = 1;
let model: EngineLanguageModel | undefined;
let losses: Losses | undefined;
let plot: Plot | undefined;
let heldBytes = 0;
let opening: AbortController | undefined;

const settings = new Settings(() => {
  void open();
  vision.reset();
});
const vision = new VisionPanel(engine, () => settings.choice, onFailure);
const controls = new MixControls(LAYERS, (heads) => setSize(heads));
const whenTyped = afterPause(TYPING_PAUSE_MS, () => writeAll());
const whenSlid = afterPause(SLIDING_PAUSE_MS, () => write(side));
const whenIdle = afterPause(IDLE_MS, () => {
  if (panes.some(({ state }) => state.isWriting)) return;
  losses?.measure(shownSides().map((i) => sizes[i]!)).catch(onFailure);
});

function shownSides(): number[] {
  return compare.checked ? [0, 1] : [0];
}

/** Loads the model as the settings say; `why` is shown meanwhile: what went wrong with the last ones. */
async function open(why?: unknown): Promise<void> {
  opening?.abort();
  const mine = new AbortController();
  opening = mine;
  for (const pane of panes) pane.stop();
  losses?.stop();
  const old = model;
  model = undefined;
  if (why) showProblem(why);
  else byId('problem').hidden = true;
  const { device, dtype, threads } = settings.choice;
  try {
    await old?.dispose();
    const onProgress = (progress: EngineProgress): void => showProgress(progress);
    const opened = await engine.languageModel(MODEL, { device, dtype, ...threads, signal: mine.signal, onProgress });
    if (mine.signal.aborted) return void opened.dispose();
    model = opened;
    losses = new Losses(opened, showSizes);
    plot = new Plot(opened.info, (heads) => {
      controls.heads = heads;
      setSize(heads);
    });
    byId('plot').replaceChildren(plot.element);
    byId('loading').hidden = true;
    heldBytes = opened.info.memory.weightBytes + opened.info.memory.workBytes;
    document.body.dataset['ready'] = `${device} ${opened.info.dtype}`;
    showSizes();
    writeAll();
    void showStored();
  } catch (error) {
    if (mine.signal.aborted) return;
    if (device === 'cpu') {
      showProblem(error);
      return;
    }
    settings.fallBack();
    void open(error);
  }
}

function showProgress({ file, loadedBytes, totalBytes, changed }: EngineProgress): void {
  const bar = byId<HTMLProgressElement>('loading-bar');
  byId('loading').hidden = false;
  if (totalBytes > 0) bar.value = loadedBytes / totalBytes;
  else bar.removeAttribute('value');
  const what = changed ? `${file} has changed on the server; fetching it anew` : `Fetching ${file}`;
  // Said once a file, shown as it goes.
  const text = byId('loading-text');
  const line = file === undefined ? 'Preparing the weights' : what;
  if (text.textContent !== line) text.textContent = line;
  bar.title = totalBytes > 0 ? `${megabytes(loadedBytes)} of ${megabytes(totalBytes)}` : megabytes(loadedBytes);
}

function setSize(heads: Heads): void {
  sizes[side] = [...heads];
  losses?.stop();
  panes[side]!.stop();
  showSizes();
  whenSlid.ask();
}

function writeAll(): void {
  for (const i of shownSides()) write(i);
}

function write(i: number): void {
  whenTyped.drop();
  losses?.stop();
  const text = prompt.value;
  if (!model || text.trim() === '') return;
  const writing = model;
  panes[i]!.write(writing, text, sizes[i]!, seed).catch((error: unknown) => {
    if (model === writing) onFailure(error);
  });
}

function onPaneState(pane: Pane): void {
  showFigures();
  if (pane.state.isWriting || pane.state.tokens === 0) return;
  const { tokens, tokensPerSecond = 0 } = pane.state;
  const who = compare.checked ? `${pane.side}: ` : '';
  byId('announce').textContent = `${who}${tokens} tokens written, ${speed(tokensPerSecond)} a second.`;
  whenIdle.ask();
  model?.memory().then(
    ({ weightBytes, workBytes }) => {
      heldBytes = weightBytes + workBytes;
      showFigures();
    },
    () => {},
  );
}

/** Everything that says which sizes there are. */
function showSizes(): void {
  for (const [i, pane] of panes.entries()) pane.setHeads(sizes[i]!);
  document.body.dataset['side'] = 'AB'[side];
  showFigures();
  plot?.show(shownSides().map((i) => ({ side: panes[i]!.side, heads: sizes[i]!, ...losses!.of(sizes[i]!) })));
}

function showFigures(): void {
  if (!model || !losses) return;
  const { parameters, bytes } = costOf(sizes[side]!, model.info);
  const { loss, isMeasured } = losses.of(sizes[side]!);
  const { tokensPerSecond } = panes[side]!.state;
  const rows = [
    ['Parameters in use', millions(parameters), `of ${millions(model.info.parameterCount)}`],
    ['Weights in use', megabytes(bytes), `read for each token; ${megabytes(heldBytes)} held in all`],
    ['Speed', tokensPerSecond === undefined ? '…' : speed(tokensPerSecond), 'tokens a second'],
    ['Loss', `${isMeasured ? '' : '≈ '}${loss.toFixed(2)}`, 'nats a token, held-out books'],
  ] as const;
  byId('figures').replaceChildren(
    ...rows.map(([name, value, more]) =>
      el('div', {}, el('dt', {}, name), el('dd', {}, el('b', {}, value), ' ', el('small', {}, more))),
    ),
  );
}

function showProblem(error: unknown, ...ways: readonly (readonly [string, () => void])[]): void {
  const problem = byId('problem');
  problem.replaceChildren(el('p', {}, error instanceof Error ? error.message : String(error)));
  if (ways.length > 0) {
    const buttons = ways.map(([name, go]) => {
      const button = el('button', { type: 'button' }, name);
      button.addEventListener('click', go);
      return button;
    });
    problem.append(el('div', { class: 'buttons' }, ...buttons));
  }
  problem.hidden = false;
  if (!model) byId('loading').hidden = true;
}

/** What went wrong while a model was in use. A GPU that is gone takes the model with it, and nothing of the text. */
function onFailure(error: unknown): void {
  const { device } = settings.choice;
  if (device === 'cpu' || !(error instanceof Error && 'code' in error && error.code === 'DEVICE')) {
    showProblem(error);
    return;
  }
  for (const pane of panes) pane.stop();
  const again = (): void => {
    // The button goes away with the message: the keyboard goes on where devices are chosen.
    document.querySelector<HTMLInputElement>('input[name=device]:checked')!.focus();
    vision.reset();
    void open();
  };
  const text = 'text' in error ? String(error.text) : error.message;
  showProblem(
    new Error(`WebGPU stopped working: ${text}\nYour text is still here. The model has to be loaded again.`),
    [
      'Go on on the CPU',
      () => {
        settings.fallBack();
        again();
      },
    ],
    ['Try WebGPU again', again],
  );
}

async function showStored(): Promise<void> {
  const bytes = (await engine.stored()).reduce((sum, file) => sum + file.bytes, 0);
  byId('stored-line').hidden = bytes === 0;
  byId('stored').textContent = `${megabytes(bytes)} of model files are kept on this device.`;
}

function keep(): void {
  const { text } = panes[side]!;
  if (text === '') return;
  panes[side]!.stop();
  prompt.value += text;
  prompt.focus();
  prompt.setSelectionRange(prompt.value.length, prompt.value.length);
  prompt.scrollTop = prompt.scrollHeight;
  writeAll();
}

function stopAll(): void {
  whenTyped.drop();
  for (const pane of panes) pane.stop();
}

function setCompare(): void {
  byId('sides').hidden = !compare.checked;
  panes[1]!.element.hidden = !compare.checked;
  document.body.toggleAttribute('data-compare', compare.checked);
  if (!compare.checked) {
    panes[1]!.stop();
    document.querySelector<HTMLInputElement>('input[name=side][value="0"]')!.checked = true;
    setSide(0);
  } else write(1);
  showSizes();
}

function setSide(to: number): void {
  side = to;
  controls.heads = sizes[side]!;
  showSizes();
}

byId('panes').append(...panes.map(({ element }) => element));
byId('mix').append(controls.element);
prompt.addEventListener('input', () => {
  losses?.stop();
  whenTyped.ask();
});
prompt.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stopAll();
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  keep();
});
compare.addEventListener('change', setCompare);
byId('sides').addEventListener('change', (event) => setSide(Number((event.target as HTMLInputElement).value)));
byId('keep').addEventListener('click', keep);
byId('stop').addEventListener('click', stopAll);
byId('again').addEventListener('click', () => {
  seed++;
  writeAll();
});
byId('clear').addEventListener('click', () => void engine.clearStored().then(showStored));

setCompare();
void open();
engine.devices().then((reports) => settings.setReports(reports), showProblem);
