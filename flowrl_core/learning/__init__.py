"""Learning: returns, losses, rollouts, PPO and evaluation."""
