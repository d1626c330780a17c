"""Policies on an encoder, from few and many demonstrations, nominal and under changed looks."""
