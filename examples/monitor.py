"""How good is the gradient of this loop? Seen while it trains, without another backward pass."""

import torch

import vantage as vt

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
monitor = vt.Monitor(model, window=50)
for step in range(200):
    x = torch.randn(64, 8)
    y = x[:, :1] + torch.randn(64, 1)
    for piece, target in zip(x.split(16), y.split(16), strict=True):
        with monitor.piece(weight=len(piece) / len(x)):
            ((model(piece) - target).square().sum() / len(x)).backward()
    row = monitor.step(batch=len(x))
    if step % 50 == 49:
        print({name: round(value, 3) for name, value in row.items()})
    optimizer.step()
    optimizer.zero_grad()
