import { z } from 'zod';
import { defineCliCommand } from '../command.ts';
export const initCommand = defineCliCommand({ name: 'init', description: '', args: {}, options: z.object({}), examples: [], run: async () => {} });
