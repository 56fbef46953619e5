/* What the parts of the benchmark guest share. */
#define PARTS 12
/* 4 KiB pages, as large as one page table, and the frames behind them. */
#define WINDOW 0x40000000
#define WINDOW_FRAMES 0x2000000
