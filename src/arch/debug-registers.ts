/** Bits of the debug registers DR6 and DR7. @sdm 17.2 */

export const DR6_BUS_LOCK = 1 << 11;
export const DR6_BD = 1 << 13;
export const DR6_BS = 1 << 14;
export const DR6_BT = 1 << 15;
export const DR6_RTM = 1 << 16;
/** Bits of DR6 that read 1 when the condition does not hold. */
export const DR6_ACTIVE_LOW = 0xffff0ff0 | 0;
export const DR6_FIXED_1 = 0xfffe07f0 | 0;
/** Bits of DR6 that software may write. */
export const DR6_VOLATILE = 0x0001e80f;
export const DR7_FIXED_1 = 0x400;
/** L0 to L3 and G0 to G3: some breakpoint is enabled. */
export const DR7_BP_EN_MASK = 0xff;
export const DR7_GD = 1 << 13;
/** Bits of DR7 that software may write. */
export const DR7_VOLATILE = 0xffff2bff | 0;
