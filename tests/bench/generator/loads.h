/* The loads that there are. Each connects, measures, waits for what is still due, and reports. */
#ifndef LOADS_H
#define LOADS_H

void run_echo(void);
void run_churn(void);

#endif
