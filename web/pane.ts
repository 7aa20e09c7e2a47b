/** One continuation: what the model writes at one size, with its speed. */

import type { EngineLanguageModel } from 'matmamba/browser';
import { el, speed } from './dom.ts';
import { type Heads, dimsOf, nameOf } from './size.ts';

/** Text before the continuation that is shown for the eye to start from. */
const LEAD_CHARACTERS = 90;
/** The model reads no more of the text than this. */
const READ_CHARACTERS = 3000;
const NEW_TOKENS = 160;
/** Tokens whose time is left out of the speed: they carry the prompt. */
const WARM_TOKENS = 1;

export interface PaneState {
  readonly tokens: number;
  readonly tokensPerSecond: number | undefined;
  readonly isWriting: boolean;
}

export class Pane {
  readonly element: HTMLElement;
  readonly side: 'A' | 'B';
  text = '';
  state: PaneState = { tokens: 0, tokensPerSecond: undefined, isWriting: false };
  readonly #onState: (pane: Pane) => void;
  readonly #title = el('span', { class: 'pane-name' });
  readonly #figures = el('span', { class: 'pane-speed' });
  readonly #lead = el('span', { class: 'lead' });
  readonly #words = el('span', { class: 'words' });
  readonly #caret = el('span', { class: 'caret', 'aria-hidden': 'true' });
  #running: AbortController | undefined;

  constructor(side: 'A' | 'B', onState: (pane: Pane) => void) {
    this.side = side;
    this.#onState = onState;
    const title = `pane-${side}`;
    this.element = el(
      'article',
      { class: `pane side-${side}`, 'aria-labelledby': title },
      el('h3', { id: title }, el('span', { class: 'pane-side' }, side), this.#title, this.#figures),
      el('p', { class: 'page', tabindex: 0, 'aria-live': 'off' }, this.#lead, this.#words, this.#caret),
    );
  }

  setHeads(heads: Heads): void {
    this.#title.textContent = nameOf(heads);
  }

  stop(): void {
    this.#running?.abort();
    this.#running = undefined;
    this.#set({ ...this.state, isWriting: false });
  }

  /** Writes anew; the rejection of a text that is stopped is none. @throws what the engine throws */
  async write(model: EngineLanguageModel, prompt: string, heads: Heads, seed: number): Promise<void> {
    this.stop();
    const running = new AbortController();
    this.#running = running;
    this.text = '';
    this.#words.textContent = '';
    this.#lead.textContent = leadOf(prompt);
    this.#set({ tokens: 0, tokensPerSecond: undefined, isWriting: true });
    const options = {
      maxNewTokens: NEW_TOKENS,
      temperature: 0.7,
      topP: 0.95,
      repetitionPenalty: 1.1,
      seed,
      mixnmatchDims: dimsOf(heads, model.info),
      signal: running.signal,
    };
    let warmMs = 0;
    let tokens = 0;
    try {
      for await (const { text, ids, ms } of model.generate(prompt.slice(-READ_CHARACTERS), options)) {
        if (running.signal.aborted) return;
        this.text += text;
        this.#words.append(text);
        tokens += ids.length;
        if (tokens <= WARM_TOKENS) warmMs = ms;
        const spent = ms - warmMs;
        this.#set({ tokens, tokensPerSecond: spent > 0 ? ((tokens - WARM_TOKENS) / spent) * 1000 : undefined, isWriting: true });
      }
    } catch (error) {
      if (!running.signal.aborted) throw error;
    } finally {
      if (this.#running === running) {
        this.#running = undefined;
        this.#set({ ...this.state, isWriting: false });
      }
    }
  }

  #set(state: PaneState): void {
    this.state = state;
    this.element.toggleAttribute('data-writing', state.isWriting);
    this.element.setAttribute('aria-busy', String(state.isWriting));
    const { tokensPerSecond } = state;
    this.#figures.textContent = tokensPerSecond === undefined ? '' : `${speed(tokensPerSecond)} tokens/s`;
    this.#onState(this);
  }
}

/** The last words of the text, from the start of a word. */
function leadOf(prompt: string): string {
  const tail = prompt.slice(-LEAD_CHARACTERS);
  return tail.length === prompt.length ? prompt : `… ${tail.slice(tail.indexOf(' ') + 1)}`;
}
