/**
 * The fault protocol for spin: the same actors, steps and invariant as fault-protocol.ts, whose stages say what they are. Sizes come as -DVCPUS,
 * -DHOSTS, -DPAGES (1 to 3) and -DROUNDS; with -DUNGUARDED the second look is left out.
 */
export const FAULT_PROTOCOL_PROMELA = `
#ifndef VCPUS
#define VCPUS 2
#endif
#ifndef HOSTS
#define HOSTS 1
#endif
#ifndef PAGES
#define PAGES 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

bit locked;
byte sequence;
byte running;
byte frames[PAGES];
/* 0: not mapped, otherwise the frame plus 1 */
byte mapped[PAGES];

inline choose(page)
{
  /* one step, PAGES ways */
  if
  :: page = 0
#if PAGES > 1
  :: page = 1
#endif
#if PAGES > 2
  :: page = 2
#endif
  fi
}

/* Checked after every step that can change it, within the step. */
#if PAGES == 1
#define SOUND (running != 0 || mapped[0] == 0 || mapped[0] == frames[0] + 1)
#elif PAGES == 2
#define SOUND (running != 0 || ((mapped[0] == 0 || mapped[0] == frames[0] + 1) && (mapped[1] == 0 || mapped[1] == frames[1] + 1)))
#elif PAGES == 3
#define SOUND (running != 0 || ((mapped[0] == 0 || mapped[0] == frames[0] + 1) && (mapped[1] == 0 || mapped[1] == frames[1] + 1) && (mapped[2] == 0 || mapped[2] == frames[2] + 1)))
#endif

active [VCPUS] proctype vcpu()
{
  byte page, seen, frame;

  choose(page);
again:
  seen = sequence;
  frame = frames[page];
  atomic { locked == 0 -> locked = 1 };
#ifndef UNGUARDED
  if
  :: d_step { (running != 0 || sequence != seen) -> skip };
     d_step { locked = 0; seen = 0; frame = 0 };
     goto again
  :: d_step { (running == 0 && sequence == seen) -> skip }
  fi;
#else
  skip;
#endif
  d_step { mapped[page] = frame + 1; assert(SOUND) };
  d_step { locked = 0; page = 0; seen = 0; frame = 0 };
end_here:
  /* stays: that a process goes away would be a step of its own */
  false
}

active [HOSTS] proctype host()
{
  byte page, rounds;

next:
  choose(page);
  atomic { locked == 0 -> locked = 1 };
  running++;
  mapped[page] = 0;
  locked = 0;
  frames[page]++;
  atomic { locked == 0 -> locked = 1 };
  d_step { sequence++; running--; assert(SOUND) };
  atomic {
    locked = 0; page = 0; rounds++;
    if
    :: rounds < ROUNDS -> goto next
    :: else
    fi
  };
end_here:
  false
}
`;
