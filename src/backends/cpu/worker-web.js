/** A member of the CPU team in a browser; see worker-loop.js. */

import { serve } from './worker-loop.js';

addEventListener(
  'message',
  ({ data }) => {
    void serve(data, (message) => postMessage(message));
  },
  { once: true },
);
