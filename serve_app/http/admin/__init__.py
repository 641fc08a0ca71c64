"""The admin API: releases, rollouts and experiments of models."""
