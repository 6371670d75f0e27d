//! Holding user processes between a restore and HELLO.
