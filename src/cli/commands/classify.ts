import { z } from 'zod';
import { defineCliCommand } from '../command.ts';
export const classifyCommand = defineCliCommand({ name: 'classify', description: '', args: {}, options: z.object({}), examples: [], run: async () => {} });
