import { z } from 'zod';
import { defineCliCommand } from '../command.ts';
export const benchCommand = defineCliCommand({ name: 'bench', description: '', args: {}, options: z.object({}), examples: [], run: async () => {} });
