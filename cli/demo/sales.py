import csv

with open("sales.csv") as file:
    sales = list(csv.DictReader(file))
months, regions = ([*dict.fromkeys(row[name] for row in sales)] for name in ("month", "region"))
revenue = {(row["month"], row["region"]): int(row["units"]) * float(row["price"]) for row in sales}
table = [["month", *regions], *([month, *(revenue[month, region] for region in regions)] for month in months)]
with open("revenue.csv", "w", newline="") as file:
    csv.writer(file).writerows(table)
for row in table:
    print(*(f"{cell:>8}" for cell in row))
