/** The engine: a worker that holds models and answers the page's requests, several at a time. */

import { EngineHost } from './engine-host.ts';

const host = new EngineHost((message, move) => postMessage(message, { transfer: move }));
addEventListener('message', ({ data }) => host.receive(data));
