/** One number, computed by the first thread. */

@unmanaged
class ClipFactorArguments {
  squares: usize;
  settings: usize;
  factor: usize;
  norm: usize;
}

export function clipFactor(address: usize, thread: i32, threads: i32): void {
  if (thread != 0) return;
  const args = changetype<ClipFactorArguments>(address);
  const norm = sqrt<f32>(load<f32>(args.squares));
  store<f32>(args.norm, norm);
  store<f32>(args.factor, isFinite<f32>(norm) ? min<f32>(1, load<f32>(args.settings) / (norm + 1e-6)) : 0);
}
