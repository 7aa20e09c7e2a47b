/**
 * WGSL of `sample`: a workgroup of 256 draws one row's token.
 *
 * WGSL has neither float64 nor 64-bit integers, so weights, exp((logit - largest) / temperature), are rounded down to whole
 * multiples of 2^-FRACTION and added as pairs of u32, low word first. Such sums are exact whatever their order, and so are
 * the products with the uniform number and with top-p: from the float32 weights on, every step is that of the definition.
 * Draws differ from float64's only where the float32 rounding of a weight (or a weight below 2^-FRACTION, which is none)
 * moves a boundary over the drawn number: a part in about 2^22 of the mass for each token.
 *
 * Nothing is sorted. Numbers order as their keys do (a float's bits, turned round for negative ones). The largest key at or
 * above which there is at least some amount is found byte by byte with a histogram of amounts, whose atomic additions of
 * whole numbers give the same in any order. With top-k the logits that can be kept are first put into a list, if it has room:
 * every invocation's largest logit is known, and the k-th largest of these is a bound that at least k logits reach.
 *
 * The token of a given mass in the order of ids is found by searching: 32 groups of 8 invocations add up a run of ids each,
 * then the run that has it is divided again.
 *
 * Constants: FRACTION, so that the sum of all weights fits; STREAM, number of the random stream.
 */

import { INVOCATION } from '../webgpu-rows.ts';
import { reduction } from '../webgpu-sums.ts';

const BLOCK = 256;
const GROUPS = 32;
const GROUP = BLOCK / GROUPS;
/** Keys in the list. */
const CAPACITY = 2048;
/** Loads of an invocation that are under way together. */
const LOADS = 4;

/** `body` for the ids from `low` to `high`, given `id` and `key`; every group has a run of `run` ids, ascending. */
const walk = (body: string): string => `
  for (var i = lane % ${GROUP}u; i < run; i += ${GROUP * LOADS}u) {
    var keys: array<u32, ${LOADS}>;
    for (var j = 0u; j < ${LOADS}u; j++) {
      keys[j] = key_of(arena[row_at + min(low + lane / ${GROUP}u * run + i + ${GROUP}u * j, high - 1u)]);
    }
    for (var j = 0u; j < ${LOADS}u; j++) {
      let id = low + lane / ${GROUP}u * run + i + ${GROUP}u * j;
      let key = keys[j];
      if (i + ${GROUP}u * j < run && id < high) { ${body} }
    }
  }
`;

/** `body` for the keys of the list or, where there is none, of the row. */
const walkKeys = (body: string): string => `
  if (listed) {
    for (var i = lane; i < entries; i += ${BLOCK}u) {
      let key = list[i];
      ${body}
    }
  } else {
    let low = 0u;
    let high = n;
    let run = run_of(n);
    ${walk(body)}
  }
`;

/** 64-bit whole numbers as (low, high). */
const WIDE_SOURCE = `
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
fn subtract64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}
fn less64(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
// a b, from 16-bit halves: no sum exceeds 2^32 - 1.
fn product(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2<u32>(a * b, (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}
// a b / 2^53 of a number below 2^63 and one below 2^53, rounded down.
fn share64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let first = product(a.x, b.x);
  let cross = product(a.x, b.y);
  let other = product(a.y, b.x);
  let last = product(a.y, b.y);
  let second = add64(add64(vec2<u32>(first.y, 0u), vec2<u32>(cross.x, 0u)), vec2<u32>(other.x, 0u));
  let third = add64(add64(add64(vec2<u32>(second.y, 0u), vec2<u32>(cross.y, 0u)), vec2<u32>(other.y, 0u)), vec2<u32>(last.x, 0u));
  let fourth = last.y + third.y;
  return vec2<u32>((second.x >> 21u) | (third.x << 11u), (third.x >> 21u) | (fourth << 11u));
}
fn multiple64(a: vec2<u32>, b: u32) -> vec2<u32> {
  let low = product(a.x, b);
  return vec2<u32>(low.x, low.y + a.y * b);
}
// a b / 2^32, rounded up.
fn scaled64(a: vec2<u32>, b: u32) -> vec2<u32> {
  let low = product(a.x, b);
  return add64(add64(vec2<u32>(low.y, 0u), product(a.y, b)), vec2<u32>(select(0u, 1u, low.x != 0u), 0u));
}
`;

const NUMBERS_SOURCE = `
const MINUS_INFINITY = 0x007fffffu;
const NOT_FINITE = 0xff800000u;
// Orders as the number does; both zeros are one number, and what is not a number is above all.
fn key_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  if (bits == 0x80000000u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
fn value_of(key: u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u)); }

// Probability relative to the likeliest token's.
fn weight_of(key: u32) -> f32 {
  if (key == best_key) { return 1.0; }
  if (key <= MINUS_INFINITY) { return 0.0; }
  let difference = value_of(key) - value_of(best_key);
  if (difference < -104.0 * temperature) { return 0.0; }
  return min(exp(difference / temperature), 1.0);
}
// A number from 0 to 1, rounded down to a multiple of 2^-FRACTION.
fn fixed(x: f32) -> vec2<u32> {
  let bits = bitcast<u32>(x);
  let exponent = bits >> 23u;
  if (exponent == 0u) { return vec2<u32>(); }
  let digits = (bits & 0x7fffffu) | 0x800000u;
  let shift = i32(exponent) - 150 + i32(FRACTION);
  if (shift < 0) { return vec2<u32>(select(digits >> u32(min(-shift, 31)), 0u, shift < -23), 0u); }
  return vec2<u32>(digits << u32(shift), (digits >> 12u) >> u32(20 - shift));
}

// Number 2 draw of the row's stream and the one after it, as a multiple of 2^-53.
fn uniform_number(seed: u32, draw: u32, row: u32) -> vec2<u32> {
  var counter = vec4<u32>(draw >> 1u, 0u, STREAM, row);
  var key = vec2<u32>(seed, 0u);
  for (var round = 0u; round < 10u; round++) {
    let p = product(0xd2511f53u, counter.x);
    let q = product(0xcd9e8d57u, counter.z);
    counter = vec4<u32>(q.y ^ counter.y ^ key.x, q.x, p.y ^ counter.w ^ key.y, p.x);
    key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  let words = select(counter.xy, counter.zw, (draw & 1u) != 0u);
  let high = words.x >> 5u;
  return vec2<u32>((high << 26u) | (words.y >> 6u), high >> 6u);
}
`;

const SEARCH_SOURCE = `
var<private> row_at: u32;
var<private> n: u32;
var<private> best_key: u32;
var<private> temperature: f32;
// Kept are keys from kept_key on, of those equal to it ids up to last, and weights of at least least.
var<private> kept_key: u32;
var<private> last: u32;
var<private> least: f32;

var<workgroup> list: array<u32, ${CAPACITY}>;
var<workgroup> list_size: atomic<u32>;
var<workgroup> bins_low: array<atomic<u32>, 256>;
var<workgroup> bins_high: array<atomic<u32>, 256>;
var<workgroup> cells: array<vec2<u32>, ${BLOCK}>;
var<workgroup> totals: array<vec2<u32>, ${GROUPS}>;
var<workgroup> told: vec4<u32>;

// What lane 0 has, for all, and the same for all.
fn tell(value: vec4<u32>, lane: u32) -> vec4<u32> {
  workgroupBarrier();
  if (lane == 0u) { told = value; }
  return workgroupUniformLoad(&told);
}

// Ids in the run of a group; many in whole steps of the group.
fn run_of(count: u32) -> u32 {
  let run = (count + ${GROUPS - 1}u) / ${GROUPS}u;
  return select((run + ${GROUP - 1}u) / ${GROUP}u * ${GROUP}u, run, run <= ${GROUP}u);
}

fn mass_of(key: u32, id: u32) -> vec2<u32> {
  if (key < kept_key || (key == kept_key && id > last)) { return vec2<u32>(); }
  let weight = weight_of(key);
  if (weight < least) { return vec2<u32>(); }
  return fixed(weight);
}
// Of a key, whatever its id.
fn amount_of(key: u32, counting: bool) -> vec2<u32> {
  if (counting) { return vec2<u32>(1u, 0u); }
  return mass_of(key, 0u);
}

struct Threshold { key: u32, above: vec2<u32>, equal: vec2<u32> }
// The largest key at or above which there is at least need, and how much there is above it and of it.
fn threshold(counting: bool, need: vec2<u32>, listed: bool, entries: u32, lane: u32) -> Threshold {
  var found = 0u;
  var above = vec2<u32>();
  for (var step = 0u; step < 4u; step++) {
    let shift = 24u - 8u * step;
    let prefix = select(found >> ((shift + 8u) & 31u), 0u, step == 0u);
    atomicStore(&bins_low[lane], 0u);
    atomicStore(&bins_high[lane], 0u);
    workgroupBarrier();
    ${walkKeys(`
      if (select(key >> ((shift + 8u) & 31u), 0u, step == 0u) == prefix) {
        let amount = amount_of(key, counting);
        let bin = (key >> shift) & 255u;
        if (amount.x != 0u || amount.y != 0u) {
          let before = atomicAdd(&bins_low[bin], amount.x);
          let high_amount = amount.y + select(0u, 1u, before + amount.x < before);
          if (high_amount != 0u) { atomicAdd(&bins_high[bin], high_amount); }
        }
      }`)}
    workgroupBarrier();
    cells[lane] = vec2<u32>(atomicLoad(&bins_low[lane]), atomicLoad(&bins_high[lane]));
    workgroupBarrier();
    if (lane < 16u) {
      var total = vec2<u32>();
      for (var i = 0u; i < 16u; i++) { total = add64(total, cells[16u * lane + i]); }
      totals[lane] = total;
    }
    workgroupBarrier();
    var bin = 0u;
    if (lane == 0u) {
      var block = 15u;
      while (block > 0u && less64(add64(above, totals[block]), need)) {
        above = add64(above, totals[block]);
        block--;
      }
      bin = 16u * block + 15u;
      while (bin > 16u * block && less64(add64(above, cells[bin]), need)) {
        above = add64(above, cells[bin]);
        bin--;
      }
    }
    let choice = tell(vec4<u32>(bin, above, 0u), lane);
    found |= choice.x << shift;
    above = choice.yz;
  }
  return Threshold(found, above, cells[found & 255u]);
}

// The lowest id up to which there is more than some amount: with drawing kept weights, of which number's share is drawn;
// otherwise ids of keys equal to kept_key, of which there are more than number.
fn pick(drawing: bool, number: vec2<u32>, lane: u32) -> u32 {
  var low = 0u;
  var high = tell(vec4<u32>(n), lane).x;
  var left = number;
  var first = drawing;
  while (high - low > 1u) {
    let run = run_of(high - low);
    var sum = vec2<u32>();
    ${walk(`
      if (drawing) { sum = add64(sum, mass_of(key, id)); }
      else if (key == kept_key) { sum.x++; }`)}
    cells[lane] = sum;
    workgroupBarrier();
    if (lane < ${GROUPS}u) {
      var total = vec2<u32>();
      for (var i = 0u; i < ${GROUP}u; i++) { total = add64(total, cells[${GROUP}u * lane + i]); }
      totals[lane] = total;
    }
    workgroupBarrier();
    var group = 0u;
    if (lane == 0u) {
      if (first) {
        var total = vec2<u32>();
        for (var i = 0u; i < ${GROUPS}u; i++) { total = add64(total, totals[i]); }
        left = share64(total, number);
      }
      while (group < ${GROUPS - 1}u && !less64(left, totals[group])) {
        left = subtract64(left, totals[group]);
        group++;
      }
    }
    let choice = tell(vec4<u32>(group, left, 0u), lane);
    first = false;
    left = choice.yz;
    low += choice.x * run;
    high = min(high, low + run);
  }
  return low;
}
`;

/** logits: (rows, width); settings: temperature, topK, topP, minP, usable ids; random: seed, draw; ids: (rows). */
export const SAMPLE_SOURCE = `${WIDE_SOURCE}${NUMBERS_SOURCE}${SEARCH_SOURCE}
${reduction('group_max', 'u32', BLOCK, (a, b) => `max(${a}, ${b})`)}
${reduction('group_add64', 'vec2<u32>', BLOCK, (a, b) => `add64(${a}, ${b})`)}

@compute @workgroup_size(${BLOCK})
fn sample(${INVOCATION}) {
  let row = folded(wid, count);
  if (row >= c.rows) { return; }
  row_at = c.logits + row * c.logitsStride;
  let given = tell(vec4<u32>(arena[c.settings], arena[c.settings + 1u], arena[c.settings + 2u], arena[c.settings + 4u]), lane);
  temperature = bitcast<f32>(given.x);
  let top_p = bitcast<f32>(given.z);
  n = max(1u, min(c.width, u32(bitcast<f32>(given.w))));
  let k = u32(bitcast<f32>(given.y));
  kept_key = 0u;
  last = 0xffffffffu;
  least = 0.0;

  // The largest logit, of equals the lowest id.
  var own_key = 0u;
  var own_id = 0u;
  {
    let low = 0u;
    let high = n;
    let run = run_of(n);
    ${walk('if (key > own_key) { own_key = key; own_id = id; }')}
  }
  best_key = tell(vec4<u32>(group_max(own_key, lane)), lane).x;
  let best_id = ~group_max(select(0u, ~own_id, own_key == best_key), lane);
  let finite = best_key > MINUS_INFINITY && best_key < NOT_FINITE;
  // A temperature too small for float32's normal numbers is none.
  let known = tell(vec4<u32>(select(0u, 1u, !finite || given.x < 0x00800000u)), lane).x != 0u;
  if (known) {
    if (lane == 0u) { arena[c.ids + row] = select(0xffffffffu, best_id, finite); }
    return;
  }

  // Top-k: the k-th largest logit.
  var listed = false;
  var entries = 0u;
  if (tell(vec4<u32>(select(0u, 1u, k > 0u && k < n)), lane).x != 0u) {
    cells[lane] = vec2<u32>(own_key, 0u);
    if (lane == 0u) { atomicStore(&list_size, 0u); }
    workgroupBarrier();
    var reached = 0u;
    for (var i = 0u; i < ${BLOCK}u; i++) { reached += select(0u, 1u, cells[i].x >= own_key); }
    let bound = group_max(select(0u, own_key, reached >= k), lane);
    {
      let low = 0u;
      let high = n;
      let run = run_of(n);
      ${walk(`
      if (key >= bound) {
        let at = atomicAdd(&list_size, 1u);
        if (at < ${CAPACITY}u) { list[at] = key; }
      }`)}
    }
    workgroupBarrier();
    entries = tell(vec4<u32>(atomicLoad(&list_size)), lane).x;
    listed = entries <= ${CAPACITY}u;
    kept_key = threshold(true, vec2<u32>(k, 0u), listed, entries, lane).key;
  }

  // Top-p: the fewest of the likeliest that hold its share; of equal weights the lower ids.
  if (tell(vec4<u32>(select(0u, 1u, top_p < 1.0)), lane).x != 0u) {
    var own_mass = vec2<u32>();
    ${walkKeys('own_mass = add64(own_mass, mass_of(key, 0u));')}
    let mass = group_add64(own_mass, lane);
    var need = scaled64(mass, u32(top_p * 4294967296.0));
    if (less64(need, vec2<u32>(1u, 0u))) { need.x = 1u; }
    let cut = threshold(false, need, listed, entries, lane);
    kept_key = cut.key;
    // How many of the equals the share still needs: the fewest t for which above + t weight reaches it.
    let weight = fixed(weight_of(cut.key));
    let missing = subtract64(need, cut.above);
    var few = 0u;
    var many = n;
    while (many - few > 1u) {
      let middle = few + (many - few) / 2u;
      if (less64(multiple64(weight, middle), missing)) { few = middle; } else { many = middle; }
    }
    let some = less64(multiple64(weight, many), cut.equal);
    if (tell(vec4<u32>(select(0u, 1u, some)), lane).x != 0u) { last = pick(false, vec2<u32>(many - 1u, 0u), lane); }
  }

  least = bitcast<f32>(arena[c.settings + 3u]);
  let id = pick(true, uniform_number(arena[c.random], arena[c.random + 1u], row), lane);
  if (lane == 0u) { arena[c.ids + row] = id; }
}
`;
