import pandas as pd

sales = pd.read_csv("sales.csv")
sales["revenue"] = sales.units * sales.price
table = sales.pivot_table(index="month", columns="region", values="revenue", aggfunc="sum", margins=True)
table.to_csv("revenue.csv")
table.round(2)
