/** Names of the extensions that rows of the encoding table belong to. */
export type Feature = 'base' | 'AVX' | 'AVX2' | 'FMA' | 'F16C';
