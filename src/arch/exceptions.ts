/** Exception vectors, and which of them push an error code (@sdm 6.15). */
export const DE_VECTOR = 0;
export const DB_VECTOR = 1;
export const NMI_VECTOR = 2;
export const BP_VECTOR = 3;
export const OF_VECTOR = 4;
export const BR_VECTOR = 5;
export const UD_VECTOR = 6;
export const NM_VECTOR = 7;
export const DF_VECTOR = 8;
export const TS_VECTOR = 10;
export const NP_VECTOR = 11;
export const SS_VECTOR = 12;
export const GP_VECTOR = 13;
export const PF_VECTOR = 14;
export const MF_VECTOR = 16;
export const AC_VECTOR = 17;
export const MC_VECTOR = 18;
export const XM_VECTOR = 19;
export const VE_VECTOR = 20;
export const CP_VECTOR = 21;
/** VMM communication: what a guest with encrypted state gets instead of an exit (@apm 15.35.5). */
export const VC_VECTOR = 29;

const names =
  '#DE #DB NMI #BP #OF #BR #UD #NM #DF #9 #TS #NP #SS #GP #PF #15 #MF #AC #MC #XM #VE #CP #22 #23 #24 #25 #26 #27 #HV #VC'.split(
    ' ',
  );

/** `#PF` and so on; `#N` for a vector without a mnemonic. */
export function exceptionName(vector: number): string {
  return names[vector] ?? `#${vector}`;
}

/** True when delivery pushes an error code in protected and long mode. */
export function hasErrorCode(vector: number): boolean {
  return (
    vector === DF_VECTOR ||
    (vector >= TS_VECTOR && vector <= PF_VECTOR) ||
    vector === AC_VECTOR ||
    vector === CP_VECTOR ||
    vector === VC_VECTOR
  );
}

/** The same of the exceptions that a VM entry may inject with one: a processor without shadow stacks knows no other. @kvm x86.h x86_exception_has_error_code */
export function injectsErrorCode(vector: number): boolean {
  return vector <= AC_VECTOR && hasErrorCode(vector);
}

/** The classes that decide whether a second exception makes a double fault (@sdm table 6-5). */
export type ExceptionClass = 'benign' | 'contributory' | 'page-fault';
export function exceptionClass(vector: number): ExceptionClass {
  if (vector === PF_VECTOR) return 'page-fault';
  return vector === DE_VECTOR || (vector >= TS_VECTOR && vector <= GP_VECTOR) || vector === VC_VECTOR
    ? 'contributory'
    : 'benign';
}
