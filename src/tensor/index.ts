/** Host tensors, their element types and repeatable random numbers. */
export * from './dtype.ts';
export * from './int4.ts';
export * from './tensor.ts';
export * from './random.ts';
