import { z } from 'zod';
import { defineCliCommand } from '../command.ts';
export const convertCommand = defineCliCommand({ name: 'convert', description: '', args: {}, options: z.object({}), examples: [], run: async () => {} });
