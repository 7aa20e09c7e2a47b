/** Where the model runs, how its weights are stored, and how the page looks. */

import type { DeviceReport, EngineModelOptions } from 'matmamba/browser';
import { byId, el } from './dom.ts';

export interface DeviceChoice {
  readonly device: NonNullable<EngineModelOptions['device']>;
  readonly dtype: NonNullable<EngineModelOptions['dtype']>;
  readonly threads: { readonly threads?: number };
}

/** Weights by device, the best first. */
const DTYPES: Readonly<Record<string, readonly string[]>> = {
  cpu: ['int8', 'bf16', 'f32'],
  webgpu: ['f16', 'f32', 'int8', 'int4'],
};
const BITS: Readonly<Record<string, string>> = {
  int4: '4 bits',
  int8: '8 bits',
  bf16: '16 bits',
  f16: '16 bits',
  f32: '32 bits',
};

export class Settings {
  readonly #dtype = byId<HTMLSelectElement>('dtype');
  readonly #note = byId('device-note');
  #reports: readonly DeviceReport[] = [];

  constructor(onChange: () => void) {
    byId('devices').addEventListener('change', () => {
      this.#showDevice();
      onChange();
    });
    this.#dtype.addEventListener('change', onChange);
    this.#showDevice();
    bindTheme();
  }

  get choice(): DeviceChoice {
    const device = document.querySelector<HTMLInputElement>('input[name=device]:checked')!.value as DeviceChoice['device'];
    const given = Number(new URLSearchParams(location.search).get('threads'));
    return {
      device,
      dtype: this.#dtype.value as DeviceChoice['dtype'],
      threads: device === 'cpu' && given > 0 ? { threads: given } : {},
    };
  }

  /** Which devices there are; those that cannot be used say why. */
  setReports(reports: readonly DeviceReport[]): void {
    this.#reports = reports;
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name=device]')) {
      const report = reports.find(({ device }) => device === input.value);
      input.disabled = !report?.usable;
      input.parentElement!.title = reasonOf(input.value, report);
    }
    this.#showNote();
  }

  /** Back to the CPU, without telling. */
  fallBack(): void {
    document.querySelector<HTMLInputElement>('input[name=device][value=cpu]')!.checked = true;
    this.#showDevice();
  }

  #showDevice(): void {
    const { device } = this.choice;
    const there: readonly string[] | undefined = this.#reports.find((report) => report.device === device)?.dtypes;
    const offered = DTYPES[device]!.filter((dtype) => there?.includes(dtype) ?? true);
    this.#dtype.replaceChildren(...offered.map((dtype) => el('option', { value: dtype }, BITS[dtype]!)));
    this.#showNote();
  }

  #showNote(): void {
    const { device } = this.choice;
    const used = this.#reports.find((report) => report.device === device);
    const other = device === 'cpu' ? 'webgpu' : undefined;
    const missing =
      other && this.#reports.length > 0 ? this.#reports.find((report) => String(report.device) === other) : undefined;
    const parts = [
      used?.usable ? `${device === 'cpu' ? 'CPU' : 'WebGPU'}: ${used.summary}.` : '',
      other && this.#reports.length > 0 && !missing?.usable ? `WebGPU: ${reasonOf(other, missing)}.` : '',
    ];
    this.#note.textContent = parts.join(' ').replaceAll('..', '.');
  }
}

function reasonOf(device: string, report: DeviceReport | undefined): string {
  if (device === 'webgpu' && !('gpu' in navigator)) return 'this browser does not offer it';
  const reason = (report?.summary ?? 'this build does not have it').split('\n')[0]!;
  return reason.replace(/^no WebGPU adapter/, 'no adapter');
}

function bindTheme(): void {
  const select = byId<HTMLSelectElement>('theme');
  select.value = document.documentElement.dataset['theme'] ?? 'auto';
  select.addEventListener('change', () => {
    if (select.value === 'auto') {
      delete document.documentElement.dataset['theme'];
      localStorage.removeItem('theme');
    } else {
      document.documentElement.dataset['theme'] = select.value;
      localStorage.setItem('theme', select.value);
    }
  });
}
